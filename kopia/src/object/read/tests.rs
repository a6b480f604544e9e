use super::*;
use crate::content::ContentHash;
use crate::object::{ContentRole, resolve};
use std::collections::BTreeMap;
use std::io::Read;

/// Contents by ID, in memory.
#[derive(Default)]
struct Contents(BTreeMap<ContentId, Vec<u8>>);

impl Contents {
    fn put(&mut self, prefix: u8, plain: impl Into<Vec<u8>>) -> ContentId {
        let count = u32::try_from(self.0.len()).unwrap();
        let id = ContentId::new(prefix, ContentHash::from_slice(&count.to_be_bytes()).unwrap()).unwrap();
        self.0.insert(id, plain.into());
        id
    }

    /// Writes the table of `parts` as one content and gives the object over it.
    fn indirect(&mut self, parts: &[(ObjectId, usize)]) -> ObjectId {
        let content = self.put(b'x', table_text(parts));
        ObjectId { indirection: 1, compressed: false, content }
    }

    fn fetch(&self) -> impl FnMut(&ContentId) -> Result<Vec<u8>> + '_ {
        |id| self.0.get(id).cloned().ok_or_else(|| Error::new(ErrorKind::NotFound, format!("read {id}")))
    }

    fn read(&self, object: ObjectId) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut reader = ObjectReader::open(object, self.fetch())?;
        while let Some(chunk) = reader.next_chunk()? {
            out.extend_from_slice(chunk);
        }
        Ok(out)
    }

    fn resolve(&self, object: &ObjectId) -> Result<(Vec<ContentId>, Vec<ContentId>, Option<u64>)> {
        let (mut data, mut tables) = (Vec::new(), Vec::new());
        let parts = resolve(object, &mut self.fetch(), &mut |used| match used.role {
            ContentRole::Data => data.push(used.id),
            ContentRole::Table => tables.push(used.id),
        })?;
        assert_eq!(parts.contents, (data.len() + tables.len()) as u64);
        Ok((data, tables, parts.length))
    }
}

fn table_text(parts: &[(ObjectId, usize)]) -> String {
    let mut start = 0;
    let mut entries = Vec::new();
    for (object, length) in parts {
        entries.push(serde_json::json!({ "s": start, "l": length, "o": object }));
        start += length;
    }
    format!("{}\n", serde_json::json!({ "stream": "kopia:indirect", "entries": entries }))
}

#[test]
fn a_direct_object_is_its_content() {
    let mut contents = Contents::default();
    let id = contents.put(0, "hello");
    assert_eq!(contents.read(ObjectId::direct(id)).unwrap(), b"hello");
    assert_eq!(contents.resolve(&ObjectId::direct(id)).unwrap(), (vec![id], vec![], None));
    let empty = contents.put(0, "");
    assert_eq!(contents.read(ObjectId::direct(empty)).unwrap(), b"");
}

#[test]
fn nested_and_chunked_tables_are_read_through() {
    let mut contents = Contents::default();
    let chunks: Vec<_> = ["one ", "two ", "three "].map(|text| (contents.put(0, text), text.len())).into();
    let inner = contents.indirect(&[(ObjectId::direct(chunks[0].0), 4), (ObjectId::direct(chunks[1].0), 4)]);
    // A table that is itself an object of two chunks, and names an indirect part.
    let outer = table_text(&[(inner, 8), (ObjectId::direct(chunks[2].0), 6)]);
    let (first, second) = outer.split_at(40);
    let halves = [contents.put(b'x', first), contents.put(b'x', second)];
    let table =
        contents.indirect(&[(ObjectId::direct(halves[0]), 40), (ObjectId::direct(halves[1]), outer.len() - 40)]);
    let object = ObjectId { indirection: table.indirection + 1, ..table };

    assert_eq!(contents.read(object).unwrap(), b"one two three ");
    let mut text = String::new();
    ObjectReader::open(object, contents.fetch()).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "one two three ");
    let (data, mut tables, length) = contents.resolve(&object).unwrap();
    tables.sort();
    assert_eq!(data, chunks.iter().map(|c| c.0).collect::<Vec<_>>());
    let mut expected = vec![inner.content, halves[0], halves[1], table.content];
    expected.sort();
    assert_eq!(tables, expected);
    assert_eq!(length, Some(14));

    // Whatever is missing is an error that names the step, never a shorter object.
    for id in contents.0.keys().copied().collect::<Vec<_>>() {
        let mut broken = Contents(contents.0.clone());
        broken.0.remove(&id);
        assert_eq!(broken.read(object).unwrap_err().kind(), ErrorKind::NotFound, "{id}");
        let is_data = chunks.iter().any(|c| c.0 == id);
        assert_eq!(broken.resolve(&object).is_ok(), is_data, "{id}");
    }
}

#[test]
fn chunks_of_another_length_are_damage() {
    let mut contents = Contents::default();
    let chunk = ObjectId::direct(contents.put(0, "four"));
    let inner = contents.indirect(&[(chunk, 4)]);
    for length in [3, 5] {
        let object = contents.indirect(&[(chunk, length)]);
        assert_eq!(contents.read(object).unwrap_err().kind(), ErrorKind::Damaged);
        let outer = contents.indirect(&[(inner, length)]);
        assert_eq!(contents.read(outer).unwrap_err().kind(), ErrorKind::Damaged);
    }
}

#[test]
fn hostile_nesting_ends() {
    let mut contents = Contents::default();
    let mut object = ObjectId::direct(contents.put(0, "x"));
    for _ in 0..=NESTING_MAX {
        object = contents.indirect(&[(object, 1)]);
    }
    assert_eq!(contents.resolve(&object).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(contents.read(object).unwrap_err().kind(), ErrorKind::Damaged);

    // Each level names the one below a hundred times: a hundred to the sixth visits if done naively.
    let mut object = ObjectId::direct(contents.put(0, "x"));
    let mut length = 1;
    for _ in 0..6 {
        object = contents.indirect(&vec![(object, length); 100]);
        length *= 100;
    }
    let (data, tables, _) = contents.resolve(&object).unwrap();
    assert_eq!((data.len(), tables.len()), (100, 6));
}

#[test]
fn a_table_that_names_itself_ends() {
    let mut contents = Contents::default();
    let content = contents.put(b'x', "");
    let object = ObjectId { indirection: 1, compressed: false, content };
    contents.0.insert(content, table_text(&[(object, 4)]).into_bytes());
    assert!(contents.read(object).is_err());
    assert!(contents.resolve(&object).unwrap().0.is_empty());
}

#[test]
fn compressed_chunks_are_unpacked_and_never_beyond_what_their_table_says() {
    let zipped = |plain: &[u8]| {
        let mut out = vec![0, 0, 0x10, 0];
        let mut gzip = flate2::read::GzEncoder::new(plain, flate2::Compression::fast());
        gzip.read_to_end(&mut out).unwrap();
        out
    };
    let mut contents = Contents::default();
    let packed = |content| ObjectId { indirection: 0, compressed: true, content };
    let chunk = packed(contents.put(0, zipped(b"hello ")));
    let zeros = packed(contents.put(0, zipped(&vec![0; 2 << 20])));
    let plain = ObjectId::direct(contents.put(0, "world"));
    assert_eq!(contents.read(chunk).unwrap(), b"hello ");
    let whole = contents.indirect(&[(chunk, 6), (plain, 5)]);
    assert_eq!(contents.read(whole).unwrap(), b"hello world");
    for (part, length) in [(chunk, 5), (chunk, 7), (zeros, 100)] {
        let object = contents.indirect(&[(part, length)]);
        assert_eq!(contents.read(object).unwrap_err().kind(), ErrorKind::Damaged, "{length}");
    }
    let not_packed = packed(plain.content);
    assert!(contents.read(not_packed).is_err());
}
