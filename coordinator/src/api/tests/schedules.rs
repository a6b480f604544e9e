//! Schedules: said, checked, shown.

use serde_json::{Value, json};
use verger_proto::{Command, Own, OwnCycle};

use super::super::Probed;
use super::rig::{Rig, found};

fn set(rig: &Rig, change: Value) -> super::client::Reply {
    rig.call("PATCH", "/v1/repositories/photos", Some(change))
}

#[test]
fn a_schedule_is_set_in_parts_and_told_with_what_comes_next() {
    let rig = Rig::new();
    let cycle = |enabled, interval_seconds| OwnCycle { enabled, interval_seconds };
    let own = Own { full: cycle(true, 86_400), quick: cycle(false, 3_600) };
    rig.look(move |wanted| Ok(Probed { own: Some(own), ..found(wanted) }));
    rig.add("photos");
    let shown = rig.get("/v1/repositories/photos");
    let own = json!({
        "full": "own", "quick": "own", "index": "own", "zone": "UTC", "windows": [], "blackouts": [], "jitterSeconds": 0,
        "suspended": false,
    });
    assert_eq!(shown["schedule"], own);
    assert_eq!(shown["ownSettings"]["quick"], json!({ "enabled": false, "intervalSeconds": 3_600 }));
    assert_eq!(shown["next"]["full"]["reason"], "every 1d, as Kopia's own settings say");
    let disabled = "quick cycles are disabled in the repository's own Kopia settings";
    assert_eq!(shown["next"]["quick"], json!({ "reason": disabled }));
    let change = json!({
        "schedule": { "full": "0 3 * * *", "zone": "Europe/Berlin", "windows": ["22:00-06:00"] },
        "pool": "night", "weight": 3, "markToDrop": "five-hours",
    });
    assert_eq!(set(&rig, change).status, 200);
    let blackouts = json!({ "schedule": { "blackouts": ["2026-12-24/2026-12-27 holidays"], "jitterSeconds": 0 } });
    let shown = set(&rig, blackouts).json();
    let schedule = &shown["schedule"];
    assert_eq!((&schedule["full"], &schedule["quick"]), (&json!("0 3 * * *"), &json!("own")));
    assert_eq!(schedule["blackouts"], json!(["2026-12-23T23:00:00Z/2026-12-26T23:00:00Z holidays"]), "of its zone");
    // The clock shows 2023-11-14T22:13:20Z.
    let next = json!({ "at": "2023-11-15T02:00:00Z", "reason": "scheduled: 0 3 * * *" });
    assert_eq!(shown["next"]["full"], next);
    assert_eq!((&shown["pool"], &shown["weight"]), (&json!("night"), &json!(3)));
    assert_eq!(shown["markToDrop"], "five-hours");
    let open = set(&rig, json!({ "schedule": { "windows": [], "suspended": true } })).json();
    assert_eq!((&open["schedule"]["windows"], &open["suspended"]), (&json!([]), &json!(true)));
    assert_eq!(open["next"]["full"], json!({ "reason": "the schedule is suspended" }));
    assert_eq!(set(&rig, json!({ "suspended": false })).json()["schedule"]["suspended"], false);
}

#[test]
fn what_can_never_run_is_refused_with_the_fix_and_nothing_changes() {
    let rig = Rig::new();
    rig.add("photos");
    let before = rig.get("/v1/repositories/photos");
    let bad = [
        (json!({ "full": "0 0 30 2 *" }), "never fires"),
        (json!({ "full": "0 0 3 * * *" }), "seconds are not supported"),
        (json!({ "quick": "every 5s" }), "between a minute and ten years"),
        (json!({ "index": "sometimes" }), "write `own`"),
        (json!({ "zone": "Europe/Atlantis" }), "IANA"),
        (json!({ "windows": ["22:00-22:03"] }), "can never hold a stage"),
        (json!({ "windows": ["22:00-22:00"] }), "00:00-24:00"),
        (json!({ "blackouts": ["2020-01-01/2040-01-01 for ever"] }), "leave no five minutes"),
        (json!({ "blackouts": ["2027-01-01/2026-01-01"] }), "does not end after it begins"),
        (json!({ "fulll": "own" }), "unknown field `fulll`"),
        (json!({ "windows": "22:00-06:00" }), "invalid type"),
    ];
    for (schedule, why) in bad {
        let change = json!({ "exclusive": true, "weight": 7, "schedule": schedule });
        let reply = set(&rig, change.clone());
        assert_eq!(reply.error(), (400, "bad-schedule".to_owned()), "{schedule}");
        assert!(reply.json()["message"].as_str().unwrap().contains(why), "{why}: {}", reply.text);
        assert!(reply.json()["fix"].as_str().unwrap().contains("docs/schedules.md"));
        let mut new = Rig::new_repository("music");
        new["schedule"] = schedule;
        assert_eq!(rig.call("POST", "/v1/repositories", Some(new)).error().0, 400);
    }
    for change in
        [json!({ "weight": 0 }), json!({ "weight": 1001 }), json!({ "pool": "Night!" }), json!({ "markToDrop": "4" })]
    {
        assert_eq!(set(&rig, change.clone()).status, 400, "{change}");
    }
    assert_eq!(rig.get("/v1/repositories"), json!([before]));
}

#[test]
fn a_repository_is_added_with_its_schedule_and_figures_say_how_late_it_is() {
    let rig = Rig::new();
    let mut new = Rig::new_repository("photos");
    new["schedule"] = json!({ "full": "every 6h", "quick": "never" });
    let added = rig.post("/v1/repositories", new);
    assert_eq!(added["schedule"]["full"], "every 6h");
    let figures = || rig.call("GET", "/metrics", None).text;
    let line = |mode: &str, seconds: &str| {
        format!("verger_cycle_overdue_seconds{{repo=\"photos\",mode=\"{mode}\"}} {seconds}\n")
    };
    assert!(figures().contains(&line("full", "0.0")), "{}", figures());
    rig.clock.advance(std::time::Duration::from_secs(90));
    assert!(figures().contains(&line("full", "90.0")), "{}", figures());
    assert_eq!(rig.get("/v1/repositories/photos")["next"]["full"]["overdueSeconds"], 90);
    assert!(!figures().contains("mode=\"quick\""), "it never runs by itself");
    let repository = added["id"].as_str().unwrap().parse().unwrap();
    rig.take_lease(&repository, 1);
    let options = crate::testing::options(verger_proto::Mode::Full);
    rig.submit(Command::OpenCycle { repository: repository.clone(), options });
    assert!(figures().contains(&line("full", "0.0")), "it runs");
    assert_eq!(rig.get("/v1/repositories/photos")["next"]["full"], json!({ "reason": "cycle 1 is open" }));
}
