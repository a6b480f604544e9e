//! Whether a cycle is traced: each process that works on it decides the same.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Config, SamplingResult, ShouldSample};

/// The sampler that OpenTelemetry's variables name, to which a span below another process's looks like a root. Nobody told what was decided
/// there: that span is known by its name alone, and may not have been made.
#[derive(Clone, Debug)]
pub(super) struct ByTrace(Box<dyn ShouldSample>);

impl ByTrace {
    pub(super) fn as_asked() -> Self {
        Self(Config::default().sampler)
    }
}

impl ShouldSample for ByTrace {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let here = parent.filter(|parent| !parent.span().span_context().is_remote());
        self.0.should_sample(here, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::{Sampler, SamplingDecision};

    use super::*;

    fn below(trace: TraceId, is_remote: bool) -> Context {
        let parent =
            SpanContext::new(trace, SpanId::from_bytes([7; 8]), TraceFlags::SAMPLED, is_remote, TraceState::default());
        Context::new().with_remote_span_context(parent)
    }

    #[test]
    fn a_span_below_another_process_s_is_sampled_as_its_root_is() {
        let half = Sampler::TraceIdRatioBased(0.5);
        for sampler in [half.clone(), Sampler::ParentBased(Box::new(half)), Sampler::AlwaysOn, Sampler::AlwaysOff] {
            let all = ByTrace(Box::new(sampler.clone()));
            let is_sampled = |parent: Option<&Context>, trace| {
                let result = all.should_sample(parent, trace, "shard scan", &SpanKind::Internal, &[], &[]);
                result.decision == SamplingDecision::RecordAndSample
            };
            let mut sampled = 0;
            for number in 0..64_u64 {
                let trace =
                    TraceId::from_bytes(u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1).to_be_bytes());
                let as_root = is_sampled(None, trace);
                assert_eq!(is_sampled(Some(&below(trace, true)), trace), as_root, "{sampler:?}");
                sampled += u32::from(as_root);
            }
            match sampler {
                Sampler::AlwaysOn => assert_eq!(sampled, 64),
                Sampler::AlwaysOff => assert_eq!(sampled, 0),
                _ => assert!((16..48).contains(&sampled), "{sampled}"),
            }
        }
        // Within a process whatever is above decides.
        let follows = ByTrace(Box::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOff))));
        let trace = TraceId::from_bytes([9; 16]);
        let result = follows.should_sample(Some(&below(trace, false)), trace, "job", &SpanKind::Internal, &[], &[]);
        assert_eq!(result.decision, SamplingDecision::RecordAndSample);
    }
}
