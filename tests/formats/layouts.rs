//! Forms of objects that Kopia's clients wrote over the years. Each adds files to the tree of a builder.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use verger_kopia::compression::{compress_zstd_fastest, id_of};

use crate::builder::{Builder, directory, entry, noise, seek_table};

/// The S2 stream of 20 times `hello `, by the real program.
const S2_HELLOS: &str = "ff06000053327354774f0011000035cc9816781468656c6c6f201106150062";

fn hello(times: usize) -> Vec<u8> {
    b"hello ".repeat(times)
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// A stream behind the header of this name.
fn headed(name: &str, stream: &[u8]) -> Vec<u8> {
    [&id_of(name).unwrap().0.to_be_bytes(), stream].concat()
}

/// What a client with this compression would have stored. S2 only of twenty hellos.
pub fn compress(name: &str, plain: &[u8]) -> Vec<u8> {
    let stream = match name.split('-').next().unwrap() {
        "gzip" | "pgzip" => {
            // The parallel writer makes several members.
            let members = if name.starts_with('p') { plain.chunks(plain.len() / 3 + 1).collect() } else { vec![plain] };
            let one = |part: &[u8]| {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(part).unwrap();
                encoder.finish().unwrap()
            };
            members.into_iter().flat_map(one).collect()
        }
        "deflate" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => compress_zstd_fastest(plain).unwrap()[4..].to_vec(),
        "s2" => {
            assert_eq!(plain, hello(20));
            bytes_of(S2_HELLOS)
        }
        _ => {
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(
                // As the library that Kopia used: blocks of 4 MiB, not linked, a checksum at the end.
                lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max4MB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent)
                    .content_checksum(true),
                Vec::new(),
            );
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
    };
    headed(name, &stream)
}

/// All that the real program still reads.
pub const COMPRESSIONS: [&str; 17] = [
    "gzip",
    "gzip-best-speed",
    "gzip-best-compression",
    "zstd",
    "zstd-fastest",
    "zstd-better-compression",
    "zstd-best-compression",
    "s2-default",
    "s2-better",
    "s2-parallel-4",
    "s2-parallel-8",
    "pgzip",
    "pgzip-best-speed",
    "pgzip-best-compression",
    "deflate-default",
    "deflate-best-speed",
    "deflate-best-compression",
];

/// Plain bytes that this compression is tried on.
fn sample(name: &str, number: usize) -> Vec<u8> {
    if name.starts_with("s2") { hello(20) } else { [hello(200 + number), noise(number as u64, 50)].concat() }
}

/// Direct files, an empty one and one that comes twice.
pub fn plain_files(b: &mut Builder) {
    for (name, bytes) in [("empty", Vec::new()), ("small.txt", b"abc".to_vec()), ("again.txt", b"abc".to_vec())] {
        let object = b.content("", &bytes);
        b.file(name, &object, &bytes);
    }
}

/// Seek tables with Kopia's prefix of today, and without one: those lie in `p` packs (before 0.6).
pub fn seek_tables(b: &mut Builder) {
    for (name, prefix, seed) in [("seek-x.bin", "x", 1), ("seek-unprefixed.bin", "", 2)] {
        let bytes = noise(seed, 3300);
        let parts = b.chunks("", &bytes, 1000);
        let object = b.table(prefix, &parts);
        assert_eq!(object.starts_with("Ix"), prefix == "x");
        b.file(name, &object, &bytes);
    }
    // Spaces and lines as an old writer broke them.
    let bytes = noise(3, 2000);
    let parts = b.chunks("", &bytes, 1000);
    let text = seek_table(&parts).replace("},{", "},\n {").replace("[{", "[\n{").replace("}]", "}\n]");
    let object = format!("I{}", b.content("", text.as_bytes()));
    b.file("seek-lines.bin", &object, &bytes);
}

/// Tables that are objects in chunks themselves, two and three levels of them, and parts that are indirect.
pub fn nested_tables(b: &mut Builder) {
    let mut nested = Vec::new();
    for (prefix, name) in [("x", "x"), ("", "unprefixed")] {
        let bytes = noise(10 + prefix.len() as u64, 4000);
        let parts = b.chunks("", &bytes, 100);
        let first = seek_table(&parts);
        let parts = b.chunks(prefix, first.as_bytes(), 700);
        let second = seek_table(&parts);
        let two = format!("II{}", b.content(prefix, second.as_bytes()));
        b.file(&format!("two-levels-{name}.bin"), &two, &bytes);
        let parts = b.chunks(prefix, second.as_bytes(), 90);
        let three = format!("III{}", b.content(prefix, seek_table(&parts).as_bytes()));
        b.file(&format!("three-levels-{name}.bin"), &three, &bytes);
        nested.push((bytes, two));
    }
    // Two large files joined without flattening, with a plain part between.
    let (one, other) = (nested[0].clone(), nested[1].clone());
    let between = noise(12, 77);
    let middle = b.content("", &between);
    let parts = [(one.0.len(), one.1), (between.len(), middle), (other.0.len(), other.1)];
    let object = b.table("", &parts);
    b.file("joined.bin", &object, &[one.0, between, other.0].concat());
}

/// Objects compressed as objects: direct, and as chunks beside plain ones. `names`: compressions.
pub fn packed_objects(b: &mut Builder, names: &[&str]) {
    for (number, name) in names.iter().enumerate() {
        let bytes = sample(name, number);
        let packed = compress(name, &bytes);
        let object = format!("Z{}", b.content("", &packed));
        b.file(&format!("z-{name}"), &object, &bytes);
        let tail = noise(100 + number as u64, 40);
        let parts = [(bytes.len(), object.clone()), (tail.len(), b.content("", &tail)), (bytes.len(), object)];
        let table = b.table("", &parts);
        b.file(&format!("z-chunks-{name}"), &table, &[&bytes[..], &tail, &bytes].concat());
    }
}

/// IDs with a `D`, which means nothing any more.
pub fn legacy_ids(b: &mut Builder) {
    let bytes = noise(20, 500);
    let parts: Vec<_> = b.chunks("", &bytes, 200).into_iter().map(|(l, o)| (l, format!("D{o}"))).collect();
    let table = b.table("", &parts);
    b.file("d-table.bin", &table.replacen('I', "ID", 1), &bytes);
    b.file("d-direct.bin", &parts[0].1, &bytes[..200]);
    let packed = compress("gzip", &bytes[..200]);
    let object = format!("ZD{}", b.content("", &packed));
    b.file("d-packed.bin", &object, &bytes[..200]);
}

/// Directories in every form: without prefix, compressed as objects, in pieces, spelt differently.
pub fn directories(b: &mut Builder) {
    let folder = |b: &mut Builder,
                  name: &str,
                  store: &dyn Fn(&mut Builder, &str) -> String,
                  spell: &dyn Fn(String) -> String| {
        let bytes = noise(30 + name.len() as u64, 60);
        let inner = b.content("", &bytes);
        let lines: Vec<String> = (0..9).map(|n| entry("f", &format!("é <{n}>"), &inner, bytes.len())).collect();
        let text = spell(directory(&lines));
        let object = store(b, &text);
        for n in 0..9 {
            b.file(&format!("{name}/é <{n}>"), &inner, &bytes);
        }
        b.folders.push((name.to_owned(), object));
    };
    let same = |text: String| text;
    let prefixed = |b: &mut Builder, text: &str| b.content("k", text.as_bytes());
    folder(b, "dir", &prefixed, &same);
    folder(b, "dir-unprefixed", &|b, text| b.content("", text.as_bytes()), &same);
    folder(b, "dir-d", &|b, text| format!("D{}", b.content("k", text.as_bytes())), &same);
    folder(b, "dir-packed", &|b, text| format!("Z{}", b.content("", &compress("gzip", text.as_bytes()))), &same);
    for (name, prefix, length) in [("dir-in-pieces", "k", 300), ("dir-in-pieces-unprefixed", "", 77)] {
        let store = |b: &mut Builder, text: &str| {
            let parts = b.chunks(prefix, text.as_bytes(), length);
            b.table(prefix, &parts)
        };
        folder(b, name, &store, &same);
    }
    let two_levels = |b: &mut Builder, text: &str| {
        let parts = b.chunks("k", text.as_bytes(), 120);
        let parts = b.chunks("k", seek_table(&parts).as_bytes(), 333);
        format!("II{}", b.content("k", seek_table(&parts).as_bytes()))
    };
    folder(b, "dir-two-levels", &two_levels, &same);
    folder(b, "dir-no-summary", &prefixed, &|text| format!("{}}}\n", text.split(",\"summary\"").next().unwrap()));
    folder(b, "dir-lines", &prefixed, &|text| {
        text.replace("},{", "},\n\t{").replace("\":", "\" : ").trim_end().to_owned()
    });
    folder(b, "dir-order", &prefixed, &|text| {
        let text =
            text.replace("\"type\":\"f\",", "").replace("}]", "},]").replace("},", ",\"type\":\"f\",\"x\":[{}]},");
        text.replace("},]", "}]").replace("\"uid\"", "\"UID\"")
    });
    folder(b, "dir-escaped", &prefixed, &|text| {
        text.replace('<', "\\u003c").replace('>', "\\u003E").replace('é', "\\u00e9")
    });
    let empty = b.content("k", b"{\"stream\":\"kopia:directory\",\"entries\":[]}");
    b.folders.push(("dir-empty".to_owned(), empty));
}

/// Contents compressed as contents (index version 2): file, seek table and directory.
pub fn compressed_contents(b: &mut Builder, names: &[&str]) {
    for (number, name) in names.iter().enumerate() {
        let id = id_of(name).unwrap().0;
        let bytes = [sample(name, 40 + number), Vec::new()].concat();
        let object = b.compressed("", &bytes, id, &compress(name, &bytes));
        b.file(&format!("c-{name}"), &object, &bytes);
        if name.starts_with("s2") {
            continue;
        }
        let parts = b.chunks("", &noise(60 + number as u64, 900), 100);
        let text = seek_table(&parts);
        let table = format!("I{}", b.compressed("x", text.as_bytes(), id, &compress(name, text.as_bytes())));
        let lines: Vec<String> = (0..5).map(|n| entry("f", &format!("{n}"), &table, 900)).collect();
        let text = directory(&lines);
        let folder = b.compressed("k", text.as_bytes(), id, &compress(name, text.as_bytes()));
        for n in 0..5 {
            b.file(&format!("cd-{name}/{n}"), &table, &noise(60 + number as u64, 900));
        }
        b.folders.push((format!("cd-{name}"), folder));
    }
}

/// Contents of every kind that no snapshot needs, and much of it, so that packs are rewritten.
pub fn garbage(b: &mut Builder) {
    b.from_here_dead();
    for seed in 0..6 {
        let bytes = noise(1000 + seed, 3000);
        let parts = b.chunks("", &bytes, 500);
        let table = b.table(if seed % 2 == 0 { "x" } else { "" }, &parts);
        let text = directory(&[entry("f", "dead", &table, bytes.len())]);
        b.content(if seed % 2 == 0 { "k" } else { "" }, text.as_bytes());
        b.content("", &compress("gzip", text.as_bytes()));
        b.close_packs();
    }
}
