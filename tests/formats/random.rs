//! Trees of objects in forms that are drawn: whatever can stand in whatever.

use crate::builder::{Builder, OLDEST, TODAY, UPGRADED, directory, entry, noise, seek_table};
use crate::check::{Peer, is_as_built, with_programs};
use crate::layouts::{compress, garbage};
use crate::store::{HOUR, alone};
use verger_kopia::maintenance::rules::plan::Mode;

const SEEDS: u64 = 6;
/// Folders in folders, and tables in tables.
const DEPTH: usize = 2;

struct Draw {
    dice: u64,
    /// Contents may be compressed.
    packs: bool,
}

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) as usize % limit
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// One content, perhaps compressed where the index can tell.
    fn content(&mut self, b: &mut Builder, prefix: &str, plain: &[u8]) -> String {
        let name = self.one(&["gzip", "pgzip", "deflate-default", "lz4"]);
        if self.packs && name != "lz4" && self.below(3) == 0 {
            let id = verger_kopia::compression::id_of(name).unwrap().0;
            return b.compressed(prefix, plain, id, &compress(name, plain));
        }
        b.content(prefix, plain)
    }

    /// Any bytes as any object.
    fn object(&mut self, b: &mut Builder, prefix: &str, plain: &[u8], depth: usize) -> String {
        let legacy = self.one(&["", "", "", "D"]).to_owned();
        match self.below(6) {
            0 if !plain.is_empty() => format!("Z{legacy}{}", b.content("", &compress("gzip", plain))),
            1..=3 if !plain.is_empty() && depth > 0 => self.indirect(b, prefix, plain, depth),
            _ => format!("{legacy}{}", self.content(b, prefix, plain)),
        }
    }

    /// Bytes in parts, each of them any object; the table perhaps in parts as well.
    fn indirect(&mut self, b: &mut Builder, prefix: &str, plain: &[u8], depth: usize) -> String {
        let mut parts = Vec::new();
        let mut rest = plain;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(1 + self.below(rest.len().min(1 + plain.len() / 3)));
            parts.push((part.len(), self.object(b, prefix, part, depth - 1)));
            rest = after;
        }
        let prefix = self.one(&["x", "", if prefix == "k" { "k" } else { "x" }]);
        let text = seek_table(&parts);
        if depth > 1 && self.below(2) == 0 {
            return format!("I{}", self.indirect(b, prefix, text.as_bytes(), depth - 1));
        }
        let legacy = self.one(&["", "", "D"]);
        format!("I{legacy}{}", self.content(b, prefix, text.as_bytes()))
    }

    fn folder(&mut self, b: &mut Builder, path: &str, depth: usize) -> String {
        let mut lines = Vec::new();
        if depth > 0 {
            for n in 0..1 + self.below(2) {
                let object = self.folder(b, &format!("{path}d{n}/"), depth - 1);
                lines.push(entry("d", &format!("d{n}"), &object, 0));
            }
        }
        for n in 0..1 + self.below(4) {
            let length = [0, 1, 50, 400, 3000][self.below(5)];
            // Of few kinds, so that much comes twice.
            let plain = noise(self.below(7) as u64, length);
            let object = self.object(b, "", &plain, DEPTH);
            b.file(&format!("{path}f{n}"), &object, &plain);
            lines.push(entry("f", &format!("f{n}"), &object, length));
        }
        if self.below(3) == 0 {
            b.close_packs();
        }
        let prefix = self.one(&["k", "k", ""]);
        self.object(b, prefix, directory(&lines).as_bytes(), DEPTH)
    }
}

#[test]
fn r7_r8_whatever_stands_in_whatever_is_found_and_kept() {
    for seed in 0..SEEDS {
        let shape = [OLDEST, UPGRADED, TODAY][seed as usize % 3].clone();
        let mut draw = Draw { dice: seed.wrapping_mul(0x9E37_79B9), packs: shape.index_version == 2 };
        let mut builder = Builder::new(&shape);
        let root = draw.folder(&mut builder, "", DEPTH);
        let folder = builder.content("k", directory(&[entry("d", "tree", &root, 0)]).as_bytes());
        for file in &mut builder.files {
            file.0 = format!("tree/{}", file.0);
        }
        builder.snapshot_of("d", &folder);
        garbage(&mut builder);
        builder.finish();
        builder.world.clock.advance(HOUR);
        let when = format!("with seed {seed}");
        is_as_built(&builder, &when);
        let report = builder.world.cycle(&alone(Mode::Full));
        assert_eq!(report.outcome, "done", "{when}");
        is_as_built(&builder, &format!("{when}, after a cycle"));
        let view = builder.world.view();
        assert!(builder.dead.iter().all(|id| view.table.find(id).is_none()), "{when}");
        if seed == 1 {
            with_programs(&builder, Peer::Reads, &when);
        }
    }
}
