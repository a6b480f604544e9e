//! A server that dies, forgets or hangs, and messages that nobody should have sent.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream;
use verger_proto::work_queue::message::{MESSAGE_BYTES_MAX, Message};
use verger_proto::work_queue::meters::Fate;
use verger_proto::work_queue::nats::{Names, NatsQueue, Settings, SettingsError, Standing};
use verger_proto::work_queue::{Offer, SigningKey, Wake, WorkQueue, WorkQueueError, conformance};
use verger_proto::{FleetId, LogTime, Pool};

use super::rig::{Rig, SOON, eventually, key, keys, take};

/// What "at once" may take on a busy machine; every wait below is longer.
const AT_ONCE: Duration = Duration::from_secs(2);

fn at_once<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = call();
    assert!(began.elapsed() < AT_ONCE, "{what} took {:?}", began.elapsed());
    done
}

fn now() -> LogTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    LogTime(u64::try_from(since.as_millis()).unwrap())
}

fn one_pool() -> [Pool; 1] {
    [Pool::default()]
}

#[test]
fn without_a_server_all_is_refused_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = Settings::new(vec![format!("nats://127.0.0.1:{port}")], FleetId::new("0a1b2c3d").unwrap());
    let (pools, wait) = (conformance::pools(), SOON);
    let coordinator = at_once("a start", || NatsQueue::administer(&settings, &pools, key())).unwrap();
    let worker = at_once("a start", || NatsQueue::join(&settings, keys())).unwrap();
    for _ in 0..3 {
        let offered = at_once("an offer", || coordinator.offer(&conformance::job(&pools[0], 1)));
        assert!(matches!(offered, Err(WorkQueueError::Away(_))), "{offered:?}");
        let taken = at_once("a look", || worker.take(&pools, wait)).map(|taken| taken.is_some());
        assert!(matches!(taken, Err(WorkQueueError::Away(_))), "{taken:?}");
    }
    assert_eq!(coordinator.meters().get(Fate::Unoffered), 3);
    assert!(matches!(worker.standing(), Standing::Away(_)));
}

#[test]
fn settings_that_cannot_be_used_are_refused_without_telling_secrets() {
    let fleet = FleetId::new("0a1b2c3d").unwrap();
    let join = |server: &str| NatsQueue::join(&Settings::new(vec![server.to_owned()], fleet.clone()), keys()).err();
    assert_eq!(join("nats://me:hunter2@127.0.0.1"), Some(SettingsError::SecretInAddress));
    for address in ["http://127.0.0.1", "ws://127.0.0.1", "nats://", ""] {
        assert!(matches!(join(address), Some(SettingsError::Address(_))), "{address:?}");
    }
    assert!(!join("nats://me:hunter2@127.0.0.1").unwrap().to_string().contains("hunter2"));
}

/// What the server acknowledged is there after kill -9; the queue comes back by itself on both sides.
#[test]
fn a_server_that_was_killed_has_what_it_acknowledged() {
    let Some(mut rig) = Rig::start() else { return };
    let fleet = rig.new_fleet();
    let (coordinator, worker, pools) = (rig.coordinator(&fleet), rig.worker(&fleet), one_pool());
    (0..20).for_each(|number| coordinator.offer(&conformance::job(&pools[0], number)).unwrap());
    // One is in somebody's hands, and that comes again, too.
    let held = take(&worker, &pools);
    rig.server.kill();
    eventually("the loss is noticed", || matches!(worker.standing(), Standing::Away(_)));
    eventually("the loss is noticed", || matches!(coordinator.standing(), Standing::Away(_)));
    let taken = at_once("a look", || worker.take(&pools, SOON)).map(|taken| taken.is_some());
    assert!(matches!(taken, Err(WorkQueueError::Away(_))), "{taken:?}");
    assert!(at_once("an offer", || coordinator.offer(&conformance::job(&pools[0], 99))).is_err());
    drop(held);
    rig.server.restart();
    let mut seen = BTreeSet::new();
    let began = Instant::now();
    while seen.len() < 20 {
        assert!(began.elapsed() < SOON * 3, "{} of 20 came", seen.len());
        let taken = take(&worker, &pools);
        let Wake::Job(hint) = &taken.offer().wake else { panic!("an offer of a job") };
        seen.insert(hint.job.0);
        taken.done();
    }
    eventually("the coordinator is back", || coordinator.standing() == Standing::Up);
    coordinator.offer(&conformance::job(&pools[0], 100)).unwrap();
}

#[test]
fn a_server_that_forgot_all_is_made_ready_again_within_seconds() {
    let Some(mut rig) = Rig::start() else { return };
    let fleet = rig.new_fleet();
    let (coordinator, worker, pools) = (rig.coordinator(&fleet), rig.worker(&fleet), conformance::pools());
    let offer = conformance::job(&pools[0], 1);
    coordinator.offer(&offer).unwrap();
    rig.server.kill();
    rig.server.forget();
    eventually("the loss is noticed", || matches!(coordinator.standing(), Standing::Away(_)));
    rig.server.restart();
    let began = Instant::now();
    eventually("all is made again", || coordinator.standing() == Standing::Up);
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    // The server does not know that it had this one.
    coordinator.offer(&offer).unwrap();
    let taken = take(&worker, &pools);
    assert_eq!(*taken.offer(), offer);
    taken.done();
    // Somebody deletes the stream under a living connection: the next offer finds out, and the one after that is taken.
    let names = Names::of(fleet);
    rig.with_client(async |context| context.delete_stream(names.stream()).await.map(drop)).unwrap();
    let lost = coordinator.offer(&conformance::job(&pools[0], 2));
    assert!(matches!(lost, Err(WorkQueueError::Absent(_))), "{lost:?}");
    eventually("all is made again", || coordinator.standing() == Standing::Up);
    coordinator.offer(&conformance::job(&pools[1], 3)).unwrap();
    take(&worker, &pools).done();
}

#[test]
fn a_worker_stands_the_absence_of_a_stream() {
    let Some(rig) = Rig::start() else { return };
    let fleet = rig.new_fleet();
    let (worker, pools) = (rig.worker(&fleet), conformance::pools());
    let absent = at_once("a look", || worker.take(&pools, SOON)).map(|taken| taken.is_some());
    assert!(matches!(absent, Err(WorkQueueError::Absent(_))), "{absent:?}");
    // A pool that nobody offers to is no trouble for those beside it.
    let coordinator = NatsQueue::administer(&rig.settings(&fleet), &[], key()).unwrap();
    eventually("the stream is made", || coordinator.standing() == Standing::Up);
    coordinator.offer(&conformance::job(&pools[1], 1)).unwrap();
    take(&worker, &pools).done();
}

#[test]
fn a_server_that_hangs_costs_no_more_than_the_wait() {
    let Some(rig) = Rig::start() else { return };
    let fleet = rig.new_fleet();
    let (coordinator, worker, pools) = (rig.coordinator(&fleet), rig.worker(&fleet), one_pool());
    rig.server.freeze();
    let (began, wait) = (Instant::now(), Duration::from_secs(1));
    let offered = coordinator.offer(&conformance::job(&pools[0], 1));
    assert!(matches!(offered, Err(WorkQueueError::Away(_))), "{offered:?}");
    let taken = worker.take(&pools, wait).map(|taken| taken.is_some());
    assert!(matches!(taken, Err(WorkQueueError::Away(_))), "{taken:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // Of a thousand jobs, one now and then waits.
    let began = Instant::now();
    (0..1000).for_each(|job| assert!(coordinator.offer(&conformance::job(&pools[0], job)).is_err()));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    rig.server.thaw();
    let offer = conformance::job(&pools[0], 7777);
    eventually("the coordinator offers again", || coordinator.offer(&offer).is_ok());
    let began = Instant::now();
    // The first one may have arrived, although nobody said so.
    loop {
        assert!(began.elapsed() < SOON, "the offer does not come");
        let taken = take(&worker, &pools);
        let is_it = *taken.offer() == offer;
        taken.done();
        if is_it {
            break;
        }
    }
}

/// Puts messages into the stream past any coordinator.
fn put(rig: &Rig, names: &Names, pool: &Pool, messages: &[Vec<u8>]) {
    rig.with_client(async |context| {
        for (number, message) in messages.iter().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", if number % 2 == 0 { "00-not-a-trace\u{fc}" } else { "" });
            let sent = context.publish_with_headers(names.subject(pool), headers, message.clone().into()).await;
            sent.unwrap().await.unwrap();
        }
    });
}

/// A stream that takes more than ours would.
fn make_stream(rig: &Rig, names: &Names) {
    rig.with_client(async |context| {
        let (name, subjects) = (names.stream(), vec![names.subjects()]);
        let retention = stream::RetentionPolicy::WorkQueue;
        let made =
            context.create_stream(stream::Config { name, subjects, retention, ..stream::Config::default() }).await;
        let made = made.unwrap();
        for pool in conformance::pools() {
            let consumer = pull::Config {
                durable_name: Some(names.consumer(&pool)),
                filter_subject: names.subject(&pool),
                ack_policy: AckPolicy::Explicit,
                ..pull::Config::default()
            };
            made.create_consumer(consumer).await.unwrap();
        }
    });
}

#[test]
fn what_nobody_should_have_sent_is_thrown_away_and_counted() {
    let Some(rig) = Rig::start() else { return };
    let fleet = rig.new_fleet();
    let names = Names::of(fleet.clone());
    make_stream(&rig, &names);
    let [pool, other] = conformance::pools();
    let job = |pool: &Pool, number| Message::of(&conformance::job(pool, number), fleet.clone(), now());
    let mut cut = job(&pool, 1).seal(&key()).unwrap();
    cut.truncate(cut.len() - 72);
    let stale = Message { sent: LogTime(now().0 - 3_700_000), ..job(&pool, 2) };
    let foreign = Message { fleet: FleetId::new("ffffffff").unwrap(), ..job(&pool, 3) };
    let good = job(&pool, 9).seal(&key()).unwrap();
    let messages = [
        vec![0; MESSAGE_BYTES_MAX + 1],
        b"{}".to_vec(),
        cut,
        job(&pool, 4).seal(&SigningKey::generate(77).unwrap()).unwrap(),
        job(&pool, 5).seal(&SigningKey::generate(key().node()).unwrap()).unwrap(),
        job(&other, 6).seal(&key()).unwrap(),
        foreign.seal(&key()).unwrap(),
        stale.seal(&key()).unwrap(),
        good.clone(),
        // A good one that somebody plays again comes again: the claim tells that it is over.
        good,
    ];
    put(&rig, &names, &pool, &messages);
    let (worker, pools) = (rig.worker(&fleet), one_pool());
    for _ in 0..2 {
        let taken = take(&worker, &pools);
        assert_eq!(*taken.offer(), conformance::job(&pool, 9), "without the trace that is none");
        taken.done();
    }
    assert!(worker.take(&pools, Duration::from_secs(1)).unwrap().is_none());
    let expected = [
        ("oversized", 1),
        ("malformed", 1),
        ("unsigned", 1),
        ("unknown-key", 1),
        ("forged", 1),
        ("astray", 2),
        ("stale", 1),
    ];
    assert_eq!(worker.meters().rejected(), expected);
    // What cannot be good for anybody is gone. Another worker may know other keys or have a better clock: those stay for their hour.
    let left = rig.with_client(async |context| {
        let mut stream = context.get_stream(names.stream()).await.unwrap();
        stream.info().await.unwrap().state.messages
    });
    assert_eq!(left, 3);
}

/// The first of two workers is late: its word counts for the server, and for nobody else.
#[test]
fn a_late_word_of_the_first_worker_takes_nothing_from_the_second() {
    let Some(rig) = Rig::start() else { return };
    let fleet = rig.new_fleet();
    let names = Names::of(fleet.clone());
    let (coordinator, late, second, pools) =
        (rig.coordinator(&fleet), rig.worker(&fleet), rig.worker(&fleet), one_pool());
    rig.with_client(async |context| {
        let consumer = pull::Config {
            durable_name: Some(names.consumer(&pools[0])),
            filter_subject: names.subject(&pools[0]),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(1),
            // A server does not change this one.
            max_waiting: 4096,
            ..pull::Config::default()
        };
        context.update_consumer_on_stream(consumer, names.stream()).await.map(drop).unwrap();
    });
    let offer = conformance::job(&pools[0], 1);
    coordinator.offer(&offer).unwrap();
    let first = take(&late, &pools);
    let again = take(&second, &pools);
    assert_eq!(*again.offer(), offer);
    assert_eq!(second.meters().get(Fate::Redelivered), 1);
    first.done();
    // Taken away under the second's hands, which has claimed meanwhile; what it says is not an error.
    again.later(Duration::ZERO);
    assert!(second.take(&pools, Duration::from_secs(2)).unwrap().is_none());
    coordinator.offer(&conformance::job(&pools[0], 2)).unwrap();
    take(&second, &pools).done();
}

#[test]
fn of_a_thousand_offers_from_two_coordinators_each_is_seen() {
    const OFFERS: u64 = 1000;
    let Some(rig) = Rig::start() else { return };
    let fleet = rig.new_fleet();
    let (pools, seen) = (conformance::pools(), Mutex::new(BTreeSet::new()));
    let coordinators = [rig.coordinator(&fleet), rig.coordinator(&fleet)];
    let workers = [(); 3].map(|()| rig.worker(&fleet));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for coordinator in &coordinators {
            scope.spawn(|| {
                (0..OFFERS).for_each(|job| coordinator.offer(&conformance::job(&pools[job as usize % 2], job)).unwrap())
            });
        }
        for worker in &workers {
            scope.spawn(|| {
                let mut turn = 0;
                while seen.lock().unwrap().len() < 1000 && began.elapsed() < SOON * 4 {
                    let Ok(Some(taken)) = worker.take(&pools, Duration::from_millis(300)) else { continue };
                    turn += 1;
                    // One is put off, one is dropped, the others are done.
                    match turn % 20 {
                        0 => taken.later(Duration::ZERO),
                        1 => drop(taken),
                        _ => {
                            let Wake::Job(hint) = &taken.offer().wake else { panic!("an offer of a job") };
                            seen.lock().unwrap().insert(hint.job.0);
                            taken.done();
                        }
                    }
                }
            });
        }
    });
    assert_eq!(seen.lock().unwrap().len(), 1000);
    let count = |fate| coordinators.iter().map(|coordinator| coordinator.meters().get(fate)).sum::<u64>();
    assert_eq!((count(Fate::Offered), count(Fate::Repeated)), (OFFERS, OFFERS));
}

/// Whoever reads the server's disk learns numbers.
#[test]
fn nothing_but_numbers_lies_on_the_server() {
    let Some(rig) = Rig::start() else { return };
    let fleet = rig.new_fleet();
    let (coordinator, worker, [pool, _]) = (rig.coordinator(&fleet), rig.worker(&fleet), conformance::pools());
    let trace = "00-edc6efca19ffa74f669f6cc3e5f7db46-00f067aa0ba902b7-01".parse().ok();
    let repository = conformance::repository();
    for number in 0..10 {
        coordinator.offer(&conformance::job(&pool, number)).unwrap();
    }
    coordinator
        .offer(&Offer { pool: pool.clone(), wake: Wake::Drive { repository: repository.clone() }, trace })
        .unwrap();
    drop(take(&worker, &[pool]));
    let kept = rig.server.kept();
    let holds = |what: &[u8]| kept.windows(what.len()).any(|window| window == what);
    // That the search finds what is there.
    assert!(holds(repository.unique.as_str().as_bytes()) && holds(b"edc6efca19ffa74f669f6cc3e5f7db46"));
    let file = key().to_file();
    for secret in [&[7; 32][..], file.split(' ').nth(1).unwrap().as_bytes(), b"filesystem://", b"s3://", b"password"] {
        assert!(!holds(secret), "{}", String::from_utf8_lossy(secret));
    }
}
