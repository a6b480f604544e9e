//! Taking an offer out of the stream, with no more rights than that needs: the server's own requests, not the client's convenience, which
//! looks at streams and consumers first.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subscriber};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::WorkQueueError;
use super::Core;
use crate::id::Pool;

/// How long a message may be under way beyond the wait.
pub(super) const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);
/// How long several pools are asked at once; whoever gets something leaves questions behind that live as long.
const SLICE_MAX: Duration = Duration::from_secs(5);
const GIVE_BACK: &[u8] = b"-NAK";

/// What the server says to one question.
enum Answer {
    Offer(Message),
    Nothing,
    Absent,
    Other(String),
}

fn read(message: Message) -> Option<Answer> {
    let status = message.status.map(|status| status.as_u16());
    let text = || message.description.as_deref().unwrap_or_default().to_ascii_lowercase();
    match status {
        None => Some(Answer::Offer(message)),
        // A sign of life.
        Some(100) => None,
        Some(404 | 408) => Some(Answer::Nothing),
        Some(_) if message.status == Some(StatusCode::NO_RESPONDERS) => Some(Answer::Absent),
        Some(409) if text().contains("consumer deleted") || text().contains("stream deleted") => Some(Answer::Absent),
        Some(409) if text().contains("leadership change") || text().contains("server shutdown") => {
            Some(Answer::Nothing)
        }
        Some(code) => Some(Answer::Other(format!("{} ({code})", text()))),
    }
}

/// Questions to pools, answered at one inbox.
struct Questions<'a> {
    core: &'a Core,
    pools: &'a [Pool],
    inbox: String,
    answers: Subscriber,
}

impl Questions<'_> {
    /// Which of the pools an answer is for: an offer comes under the pool's own subject, anything else under the inbox's.
    fn place(&self, message: &Message) -> Option<usize> {
        if message.status.is_none() {
            return self.pools.iter().position(|pool| self.core.names.subject(pool) == message.subject.as_str());
        }
        message.subject.as_str().rsplit('.').next()?.parse().ok().filter(|place| *place < self.pools.len())
    }

    async fn ask(&self, place: usize, wait: Option<Duration>) -> Result<(), WorkQueueError> {
        let body = match wait {
            Some(wait) => format!(r#"{{"batch":1,"expires":{}}}"#, wait.as_nanos()),
            None => r#"{"batch":1,"no_wait":true}"#.to_owned(),
        };
        let Some(pool) = self.pools.get(place) else { return Ok(()) };
        let (subject, reply) = (self.core.names.next(pool), format!("{}.{place}", self.inbox));
        // A full line of commands to a server that hangs would wait for ever.
        let asked = timeout(ROUND_TRIP_MAX, self.core.client.publish_with_reply(subject, reply, body.into())).await;
        asked.map_err(|_| self.core.link.silent())?.map_err(|error| WorkQueueError::Away(error.to_string()))
    }

    async fn next(&mut self, until: Instant) -> Result<(usize, Answer), WorkQueueError> {
        loop {
            let message = timeout_at(until, self.answers.next()).await.map_err(|_| self.core.link.silent())?;
            let message = message.ok_or_else(|| WorkQueueError::Away("the connection was lost".to_owned()))?;
            let Some(place) = self.place(&message) else { continue };
            self.core.link.answered();
            if let Some(answer) = read(message) {
                return Ok((place, answer));
            }
        }
    }

    fn absent(&self, place: usize) -> WorkQueueError {
        let pool = self.pools.get(place).map_or("?", |pool| pool.as_str());
        WorkQueueError::Absent(format!("consumer work-{pool} in stream {}", self.core.names.stream()))
    }
}

/// The first offer of one of the pools, as it came, with the pool.
pub(super) async fn first(
    core: &Core,
    pools: &[Pool],
    wait: Duration,
) -> Result<Option<(Pool, Message)>, WorkQueueError> {
    if pools.is_empty() {
        tokio::time::sleep(wait).await;
        return Ok(None);
    }
    let began = Instant::now();
    let inbox = core.client.new_inbox();
    let subscribed = timeout(ROUND_TRIP_MAX, core.client.subscribe(format!("{inbox}.*"))).await;
    let answers = subscribed.map_err(|_| core.link.silent())?;
    let answers = answers.map_err(|error| WorkQueueError::Away(error.to_string()))?;
    let mut questions = Questions { core, pools, inbox, answers };
    let mut absent = None;
    let is_to_look = wait.is_zero() || pools.len() > 1;
    if is_to_look && let Some(found) = look(&mut questions, &mut absent).await? {
        return Ok(Some(found));
    }
    loop {
        let left = wait.saturating_sub(began.elapsed());
        if left.is_zero() {
            return absent.map_or(Ok(None), Err);
        }
        let slice = if pools.len() > 1 { left.min(SLICE_MAX) } else { left };
        let until = Instant::now() + slice + ROUND_TRIP_MAX;
        if let (Some(found), open) = wait_for(&mut questions, slice, until).await? {
            give_back_the_rest(core.client.clone(), questions.answers, open, until);
            return Ok(Some(found));
        }
    }
}

/// One pool after the other, beginning with another one each time, so that none is always last.
async fn look(
    questions: &mut Questions<'_>,
    absent: &mut Option<WorkQueueError>,
) -> Result<Option<(Pool, Message)>, WorkQueueError> {
    let (count, turn) = (questions.pools.len(), questions.core.turn.fetch_add(1, Ordering::Relaxed));
    let mut are_absent = 0;
    for place in (0..count).map(|step| turn.wrapping_add(step) % count) {
        questions.ask(place, None).await?;
        match questions.next(Instant::now() + ROUND_TRIP_MAX).await? {
            (place, Answer::Offer(message)) => return Ok(found(questions.pools, place, message)),
            (_, Answer::Nothing) => {}
            (place, Answer::Absent) => {
                are_absent += 1;
                *absent = Some(questions.absent(place)).filter(|_| are_absent == count);
            }
            (_, Answer::Other(text)) => return Err(WorkQueueError::Away(text)),
        }
    }
    Ok(None)
}

/// All pools at once. How many have not answered yet comes with what was found.
async fn wait_for(
    questions: &mut Questions<'_>,
    wait: Duration,
    until: Instant,
) -> Result<(Option<(Pool, Message)>, usize), WorkQueueError> {
    for place in 0..questions.pools.len() {
        questions.ask(place, Some(wait)).await?;
    }
    let (mut open, mut absent) = (questions.pools.len(), 0);
    while open > 0 {
        let (place, answer) = questions.next(until).await?;
        open -= 1;
        match answer {
            Answer::Offer(message) => return Ok((found(questions.pools, place, message), open)),
            Answer::Nothing => {}
            Answer::Absent => {
                absent += 1;
                if absent == questions.pools.len() {
                    return Err(questions.absent(place));
                }
            }
            Answer::Other(text) => return Err(WorkQueueError::Away(text)),
        }
    }
    Ok((None, 0))
}

fn found(pools: &[Pool], place: usize, message: Message) -> Option<(Pool, Message)> {
    pools.get(place).map(|pool| (pool.clone(), message))
}

/// Questions that are still open may get offers, too: those go back at once, to whoever asks next. To stop listening instead would lose
/// what is under way for as long as [`ACK_WAIT`](super::super::ACK_WAIT).
fn give_back_the_rest(client: Client, mut answers: Subscriber, mut open: usize, until: Instant) {
    tokio::spawn(timeout_at(until, async move {
        while open > 0 {
            let Some(message) = answers.next().await else { return };
            let is_sign_of_life = message.status.is_some_and(|status| status.as_u16() == 100);
            open -= usize::from(!is_sign_of_life);
            if let (None, Some(reply)) = (message.status, message.reply) {
                let _ = client.publish(reply, GIVE_BACK.into()).await;
            }
        }
    }));
}
