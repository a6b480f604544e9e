//! The OpenAPI document, made from the table of routes.

use serde_json::{Map, Value, json};

use super::route::{ROUTES, Route, Shape};
use crate::auth::{Reach, Scope};

/// A field: name (with `?` at its end if it may be absent) and type: a type of JSON, `time`, `a|b` for one of these words, `[T]`,
/// or the name of a schema.
type Field = (&'static str, &'static str);

/// All schemas. What is not listed does not appear.
#[rustfmt::skip]
pub(super) const SCHEMAS: &[(&str, &[Field])] = &[
    ("Error", &[("error", "string"), ("message", "string"), ("fix?", "string"), ("leaderAddress?", "string")]),
    ("Health", &[("status", "alive|ready")]),
    ("Status", &[
        ("version", "string"), ("fleet", "string"), ("leader", "boolean"), ("leaderAddress?", "string"),
        ("repositories", "integer"), ("openCycles", "integer"),
    ]),
    ("Secret", &[("env?", "string"), ("file?", "string"), ("mounted?", "string")]),
    ("ActAs", &[("actAs", "string")]),
    ("NewRepository", &[
        ("name", "string"), ("address", "string"), ("password", "Secret"), ("acting", "Acting"),
        ("exclusive?", "boolean"), ("tenant?", "string"), ("schedule?", "ScheduleChange"), ("pool?", "string"),
        ("weight?", "integer"), ("markToDrop?", "day|five-hours"),
    ]),
    ("RepositoryChange", &[
        ("suspended?", "boolean"), ("acting?", "Acting"), ("exclusive?", "boolean"), ("password?", "Secret"),
        ("schedule?", "ScheduleChange"), ("pool?", "string"), ("weight?", "integer"),
        ("markToDrop?", "day|five-hours"),
    ]),
    ("Schedule", &[
        ("full", "string"), ("quick", "string"), ("index", "string"), ("zone", "string"), ("windows", "[string]"),
        ("blackouts", "[string]"), ("jitterSeconds", "integer"), ("suspended", "boolean"),
    ]),
    ("ScheduleChange", &[
        ("full?", "string"), ("quick?", "string"), ("index?", "string"), ("zone?", "string"),
        ("windows?", "[string]"), ("blackouts?", "[string]"), ("jitterSeconds?", "integer"),
        ("suspended?", "boolean"),
    ]),
    ("Next", &[("at?", "time"), ("reason", "string"), ("overdueSeconds?", "integer")]),
    ("Lanes", &[("full", "Next"), ("quick", "Next"), ("index", "Next")]),
    ("OwnCycle", &[("enabled", "boolean"), ("intervalSeconds", "integer")]),
    ("OwnSettings", &[("full", "OwnCycle"), ("quick", "OwnCycle")]),
    ("Repository", &[
        ("name", "string"), ("id", "string"), ("address", "string"), ("tenant", "string"), ("password", "Secret"),
        ("acting", "Acting"), ("exclusive", "boolean"), ("suspended", "boolean"), ("index", "epochs|legacy"),
        ("due", "boolean"), ("leaseHeld", "boolean"), ("term", "integer"), ("openCycle?", "integer"),
        ("queued", "integer"), ("lastCycle?", "integer"), ("lastEnd?", "End"), ("probe?", "Found"),
        ("schedule", "Schedule"), ("pool", "string"), ("weight", "integer"), ("markToDrop", "day|five-hours"),
        ("ownSettings?", "OwnSettings"), ("next", "Lanes"), ("capabilities?", "Store"), ("probedAt?", "time"),
        ("otherLease?", "OtherLease"), ("unable?", "[UnableWorker]"), ("verification?", "Verification"),
    ]),
    ("Verified", &[
        ("uniqueId", "string"), ("percent", "number"), ("snapshots", "integer"), ("contents", "integer"),
        ("contentsRead", "integer"), ("bytesRead", "integer"), ("problems", "integer"),
    ]),
    ("Verification", &[
        ("at", "time"), ("soundAt?", "time"), ("percent", "number"), ("snapshots", "integer"), ("contents", "integer"),
        ("contentsRead", "integer"), ("bytesRead", "integer"), ("problems", "integer"),
    ]),
    ("Found", &[("owner", "string"), ("capabilities", "Store"), ("warnings", "[string]")]),
    ("Probe", &[
        ("name", "string"), ("id", "string"), ("index", "epochs|legacy"), ("owner", "string"),
        ("capabilities", "Store"), ("warnings", "[string]"),
    ]),
    ("Store", &[
        ("localDisk", "boolean"), ("clockOffsetMs", "signed"), ("roundTripMs", "integer"), ("notTried?", "[string]"),
        ("conditionalWrites?", "boolean"), ("conditionalDeletes?", "boolean"), ("readAfterWrite?", "boolean"),
        ("readLateMs?", "integer"), ("listAfterWrite?", "boolean"), ("listLateMs?", "integer"),
        ("stampOffsetMs?", "integer"), ("versions?", "boolean"), ("defaultRetentionSeconds?", "integer"),
    ]),
    ("NewCycle", &[
        ("mode", "quick|full|index"), ("safety?", "full|none"), ("iAmAlone?", "boolean"), ("dryRun?", "boolean"),
        ("allowRemoving?", "integer"),
    ]),
    ("Request", &[
        ("key", "string"), ("state", "queued|open|cycle|dropped"), ("cycle?", "integer"), ("behind?", "integer"),
        ("failure?", "Failure"), ("unable?", "[UnableWorker]"), ("shutOut?", "Failure"),
    ]),
    ("Failure", &[("error", "string"), ("message", "string"), ("retryable", "boolean")]),
    ("Cycle", &[
        ("id", "integer"), ("repository?", "string"), ("repositoryId", "string"), ("traceId", "string"), ("mode", "quick|full|index"),
        ("safety", "full|none"), ("index", "epochs|legacy"), ("dryRun", "boolean"), ("iAmAlone", "boolean"),
        ("exclusive", "boolean"), ("allowRemoving?", "integer"), ("openedAt", "time"), ("endedAt?", "time"),
        ("phase", "running|waiting-for-word|stopping|parked|ended"), ("paused?", "boolean"), ("stop?", "pause|abort|fail"),
        ("stage?", "string"), ("term?", "integer"), ("jobs?", "JobCounts"), ("progress?", "Progress"),
        ("jobList?", "[Job]"), ("plan?", "Plan"), ("damage?", "string"), ("end?", "End"), ("report?", "object"),
        ("freedBytes", "integer"),
    ]),
    ("JobCounts", &[
        ("total", "integer"), ("open", "integer"), ("claimed", "integer"), ("done", "integer"),
        ("quarantined", "integer"),
    ]),
    ("Progress", &[("done", "integer"), ("total", "integer"), ("unit", "bytes|blobs|contents|snapshots|steps"),
        ("perSecond?", "number"), ("secondsLeft?", "number")]),
    ("Job", &[
        ("id", "integer"), ("attempt", "integer"), ("failures", "integer"),
        ("state", "open|claimed|done|quarantined"), ("worker?", "string"), ("itemsDone", "integer"),
        ("progress?", "Progress"),
    ]),
    ("Plan", &[
        ("digest", "string"), ("sealed", "boolean"), ("removedBytes", "integer"), ("totalPackedBytes", "integer"),
        ("contents", "integer"), ("liveContents", "integer"), ("stages", "[StageWork]"),
    ]),
    ("StageWork", &[("stage", "string"), ("items", "integer"), ("bytes", "integer")]),
    ("End", &[("outcome", "done|planned|degraded|aborted|failed"), ("message?", "string"), ("failure?", "Failure")]),
    ("Abort", &[("reason?", "string")]),
    ("Approval", &[("plan", "string"), ("allowRemoving", "integer")]),
    ("Event", &[
        ("sequence", "integer"), ("part", "integer"), ("at", "time"), ("kind", "string"), ("repository?", "string"),
        ("repositoryId?", "string"), ("cycle?", "integer"), ("actor?", "string"), ("error?", "string"),
        ("message?", "string"),
    ]),
    ("Deeds", &[("deeds", "[Deed]"), ("unread", "[string]"), ("elsewhere", "boolean")]),
    ("Deed", &[
        ("name", "string"), ("repository?", "string"), ("repositoryId", "string"), ("cycle", "integer"),
        ("stage", "string"), ("batch", "integer"), ("rule", "string"), ("plan?", "string"), ("term?", "integer"),
        ("worker?", "string"), ("outcome", "done|ambiguous|unknown"), ("approvedAt?", "time"), ("endedAt?", "time"),
        ("changed?", "integer"), ("leftOut?", "integer"), ("record", "string"), ("object?", "string"),
    ]),
    ("Lease", &[
        ("repository", "string"), ("name", "string"), ("term", "integer"), ("actsUntil", "time"),
        ("holder", "string"), ("ours", "boolean"), ("confirmed?", "time"), ("actingAs?", "string"),
        ("expires?", "time"), ("seen?", "time"),
    ]),
    ("OtherLease", &[
        ("holder", "string"), ("term", "integer"), ("actsUntil", "time"), ("expires", "time"), ("seen", "time"),
    ]),
    ("Transfer", &[("to", "string")]),
    ("NewToken", &[
        ("name", "string"), ("scopes", "[Scope]"), ("tenant?", "string"), ("allTenants?", "boolean"),
        ("expiresInSeconds?", "integer"),
    ]),
    ("Token", &[
        ("name", "string"), ("scopes", "[Scope]"), ("tenant?", "string"), ("allTenants", "boolean"), ("createdAt", "time"),
        ("expiresAt?", "time"), ("revokedAt?", "time"), ("state", "valid|expired|revoked"), ("token?", "string"),
    ]),
    ("Released", &[
        ("repository", "string"), ("name", "string"), ("term?", "integer"), ("to?", "string"), ("free", "boolean"),
        ("message?", "string"),
    ]),
    ("Worker", &[
        ("name", "string"), ("state", "ready|draining|drained|gone"), ("pools", "[string]"), ("labels", "object"),
        ("places", "integer"), ("version", "string"), ("exchange?", "string"), ("startedAt", "time"), ("seenAt", "time"),
        ("jobs", "[WorkerJob]"), ("unable?", "[Unable]"),
    ]),
    ("UnableWorker", &[("worker", "string"), ("error", "string"), ("reason", "string"), ("since", "time")]),
    ("Unable", &[("repository", "string"), ("error", "string"), ("reason", "string"), ("since", "time")]),
    ("WorkerJob", &[("cycle", "integer"), ("job", "integer"), ("stage", "string")]),
    ("Drain", &[("drain?", "boolean")]),
    ("Cluster", &[
        ("cluster", "string"), ("node", "integer"), ("leader?", "integer"), ("trouble?", "string"),
        ("term", "integer"), ("lastIndex", "integer"), ("applied", "integer"), ("level", "integer"),
        ("nodes", "[Member]"),
    ]),
    ("Member", &[
        ("node", "integer"), ("peerAddress", "string"), ("apiAddress", "string"), ("votes", "boolean"),
        ("leader", "boolean"), ("index?", "integer"), ("behind?", "integer"), ("clockAheadMs?", "signed"),
        ("level?", "integer"),
    ]),
    ("NewMember", &[
        ("node", "integer"), ("key", "string"), ("peerAddress", "string"), ("apiAddress", "string"),
        ("replaces?", "integer"), ("level?", "integer"),
    ]),
];

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn kind(text: &str) -> Value {
    match text {
        "string" | "boolean" | "object" => json!({ "type": text }),
        "number" => json!({ "type": "number", "minimum": 0 }),
        "integer" => json!({ "type": "integer", "format": "int64", "minimum": 0 }),
        "signed" => json!({ "type": "integer", "format": "int64" }),
        "time" => json!({ "type": "string", "format": "date-time" }),
        words if words.contains('|') => json!({ "type": "string", "enum": words.split('|').collect::<Vec<_>>() }),
        list if list.starts_with('[') => json!({ "type": "array", "items": kind(list.trim_matches(['[', ']'])) }),
        name => reference(name),
    }
}

fn schemas() -> Value {
    let mut all = Map::new();
    for (name, fields) in SCHEMAS {
        let required = fields.iter().filter(|(field, _)| !field.ends_with('?')).map(|(field, _)| *field);
        let required: Vec<&str> = required.collect();
        let properties = fields.iter().map(|(field, text)| (field.trim_end_matches('?').to_owned(), kind(text)));
        let properties: Map<String, Value> = properties.collect();
        // An event has the fields of its kind besides these.
        let others = *name == "Event";
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": others });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        all.insert((*name).to_owned(), schema);
    }
    let words = json!({ "type": "string", "enum": ["observe", "take-ownership"] });
    let scopes: Vec<&str> = Scope::ALL.into_iter().map(Scope::name).collect();
    all.insert("Scope".to_owned(), json!({ "type": "string", "enum": scopes }));
    all.insert("Acting".to_owned(), json!({ "oneOf": [words, reference("ActAs")] }));
    all.into()
}

const RECORD: &str = "application/octet-stream";

fn content(shape: Shape) -> Value {
    match shape {
        Shape::One(name) => json!({ "application/json": { "schema": reference(name) } }),
        Shape::Many(name) => {
            json!({ "application/json": { "schema": { "type": "array", "items": reference(name) } } })
        }
        Shape::Lines(name) => json!({
            "application/x-ndjson": { "schema": reference(name) },
            "text/event-stream": { "schema": { "type": "string" } },
        }),
        Shape::Stream(_) => json!({ "text/event-stream": { "schema": { "type": "string" } } }),
        Shape::Text => json!({ "application/openmetrics-text": { "schema": { "type": "string" } } }),
        Shape::Any => json!({ "application/json": { "schema": { "type": "object" } } }),
        Shape::Record => json!({ RECORD: { "schema": { "type": "string", "format": "binary" } } }),
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let parts = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let path = parts.map(|name| {
        let schema = kind(if name == "id" { "integer" } else { "string" });
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let query = route
        .query
        .iter()
        .map(|(name, text, what)| json!({ "name": name, "in": "query", "description": what, "schema": kind(text) }));
    let key = json!({ "name": "Idempotency-Key", "in": "header", "schema": kind("string") });
    let header = (route.body == Some("NewCycle")).then_some(key);
    path.chain(query).chain(header).collect()
}

fn operation(route: &Route) -> Value {
    let failed = json!({ "description": "Why not", "content": content(Shape::One("Error")) });
    let done = json!({ "description": route.summary, "content": content(route.answer) });
    let mut value = json!({
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": { route.status.to_string(): done, "default": failed },
    });
    if let Some(body) = route.body {
        let required = !matches!(body, "Abort" | "Drain");
        // What workers send is of this program's own making.
        let shape = if matches!(route.answer, Shape::Record) { Shape::Record } else { Shape::One(body) };
        value["requestBody"] = json!({ "required": required, "content": content(shape) });
    }
    let action = route.action;
    value["operationId"] = json!(format!("{} {}", route.method.name(), route.path));
    value["x-action"] = json!(action.name());
    if action.reach() != Reach::Open {
        value["security"] = json!([{ "token": [] }]);
        value["x-scopes"] = json!(action.needs().iter().map(|scope| scope.name()).collect::<Vec<_>>());
        value["x-reach"] = json!(if action.reach() == Reach::Fleet { "fleet" } else { "tenant" });
    }
    value
}

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.name().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Verger", "version": "v1", "license": { "name": "Apache-2.0" } },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}
