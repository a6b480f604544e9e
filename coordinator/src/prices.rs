//! What a store's requests and bytes cost, by what somebody said. Nothing is guessed: what nobody gave a price has none.

use std::collections::BTreeMap;
use std::str::FromStr;

use verger_kopia::storage::calls::{Calls, Op};

use crate::schedule::bucket_of;

/// What is paid for, as in the text of a [`Price`].
const PARTS: [&str; 5] = ["get", "put", "list", "delete", "egress"];
const BYTES: f64 = 1e9;
const REQUESTS: f64 = 1e3;

/// Of one store, in dollars: a thousand requests of four kinds, and a gigabyte (10⁹ bytes) that is read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Price {
    get: f64,
    put: f64,
    list: f64,
    delete: f64,
    egress: f64,
}

impl FromStr for Price {
    type Err = String;

    /// `get=0.0004 put=0.005 list=0.005 delete=0 egress=0.09`, in any order; none may be missing.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut said = [None; PARTS.len()];
        for word in text.split_whitespace() {
            let (part, number) =
                word.split_once('=').ok_or_else(|| format!("{word:?} is no price such as put=0.005"))?;
            let at = PARTS.iter().position(|known| *known == part);
            let at = at.ok_or_else(|| format!("{part:?} has no price: there are {}", PARTS.join(", ")))?;
            let dollars = number.parse::<f64>().ok().filter(|dollars| dollars.is_finite() && *dollars >= 0.0);
            let dollars = dollars.ok_or_else(|| format!("{word:?} is no number of dollars"))?;
            if said[at].replace(dollars).is_some() {
                return Err(format!("{part} is there twice"));
            }
        }
        match said {
            [Some(get), Some(put), Some(list), Some(delete), Some(egress)] => {
                Ok(Self { get, put, list, delete, egress })
            }
            _ => Err(format!("one of {} is missing: say 0 for what is free", PARTS.join(", "))),
        }
    }
}

impl Price {
    /// Of all that was counted, in dollars.
    #[must_use]
    pub fn of(&self, calls: &Calls) -> f64 {
        let one = |op: Op| match op {
            Op::Get | Op::Head | Op::Ask => self.get,
            Op::Put | Op::Lock => self.put,
            Op::List => self.list,
            Op::Delete => self.delete,
        };
        let requests: f64 = calls.all().into_iter().map(|(op, _, _, count)| one(op) * count as f64 / REQUESTS).sum();
        let (read, _) = calls.bytes();
        requests + self.egress * read as f64 / BYTES
    }
}

/// Of all stores that have one.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Prices {
    buckets: BTreeMap<String, Price>,
    others: Option<Price>,
}

impl Prices {
    /// Of a bucket such as `s3://attic`, or of all that are not named.
    pub fn set(&mut self, bucket: Option<String>, price: Price) {
        match bucket {
            Some(bucket) => drop(self.buckets.insert(bucket, price)),
            None => self.others = Some(price),
        }
    }

    /// Of the store at this address. A folder has none unless it is named.
    #[must_use]
    pub fn of(&self, address: &str) -> Option<Price> {
        let others = self.others.filter(|_| !address.starts_with("filesystem:"));
        self.buckets.get(&bucket_of(address)).copied().or(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verger_kopia::storage::calls::{Class, Code};

    const ALL: &str = "get=0.0004 put=0.005 list=0.006 delete=0 egress=0.09";

    #[test]
    fn what_was_counted_costs_what_was_said() {
        let (price, calls) = (ALL.parse::<Price>().unwrap(), Calls::default());
        assert_eq!(price.of(&calls), 0.0);
        for (op, count) in [(Op::Get, 3_000), (Op::Head, 1_000), (Op::Put, 1_000), (Op::List, 500), (Op::Delete, 9)] {
            for _ in 0..count {
                calls.count(op, Class::OTHER, Code::Ok, 0, 7);
            }
        }
        calls.count(Op::Lock, Class::OTHER, Code::Denied, 2_000_000_000, 0);
        let expected = 4.0 * 0.0004 + 1.001 * 0.005 + 0.5 * 0.006 + 2.0 * 0.09;
        assert!((price.of(&calls) - expected).abs() < 1e-12, "{}", price.of(&calls));
    }

    #[test]
    fn a_price_is_whole_or_none() {
        for bad in ["", "get=1", "get=1 put=1 list=1 delete=1 egress=-1", "get=1 put=1 list=1 delete=1 egress=NaN"] {
            assert!(bad.parse::<Price>().is_err(), "{bad}");
        }
        for (more, says) in [(" put=1", "twice"), (" ingress=1", "ingress"), (" free", "free")] {
            let error = format!("{ALL}{more}").parse::<Price>().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_bucket_has_its_own_price_and_a_folder_none_by_itself() {
        let named: Price = ALL.parse().unwrap();
        let other: Price = "get=1 put=1 list=1 delete=1 egress=1".parse().unwrap();
        let mut prices = Prices::default();
        assert_eq!(prices.of("s3://attic/kopia/"), None);
        prices.set(Some("s3://attic".to_owned()), named);
        assert_eq!((prices.of("s3://attic/kopia/"), prices.of("s3://attics/")), (Some(named), None));
        prices.set(None, other);
        assert_eq!((prices.of("s3://attic/"), prices.of("gs://b/")), (Some(named), Some(other)));
        assert_eq!(prices.of("filesystem:///srv/photos"), None);
        prices.set(Some("filesystem:///srv/photos".to_owned()), named);
        assert_eq!(prices.of("filesystem:///srv/photos"), Some(named));
    }
}
