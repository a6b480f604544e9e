//! Forms of the past: read as they are, kept as they are.

use crate::builder::{Builder, OLDEST, Shape, TODAY, UPGRADED};
use crate::check::{Peer, check};
use crate::layouts::{self, COMPRESSIONS};

/// Every form of object that any index version can hold.
fn objects(shape: &Shape) -> Builder {
    let mut builder = Builder::new(shape);
    layouts::plain_files(&mut builder);
    layouts::seek_tables(&mut builder);
    builder.close_packs();
    layouts::nested_tables(&mut builder);
    layouts::packed_objects(&mut builder, &COMPRESSIONS);
    builder.close_packs();
    layouts::legacy_ids(&mut builder);
    layouts::directories(&mut builder);
    builder
}

fn finished(mut builder: Builder) -> Builder {
    builder.snapshot();
    layouts::garbage(&mut builder);
    builder.finish();
    builder
}

#[test]
fn r7_r8_every_form_of_object_in_a_repository_of_the_oldest_kind() {
    check(finished(objects(&OLDEST)), Peer::Reads);
}

#[test]
fn r7_r8_every_form_of_object_in_an_upgraded_repository_with_both_index_versions() {
    let mut builder = objects(&UPGRADED);
    builder.publish_as(1);
    layouts::compressed_contents(&mut builder, &COMPRESSIONS);
    check(finished(builder), Peer::Reads);
}

#[test]
fn r7_r8_every_form_of_object_in_a_repository_of_today() {
    let mut builder = objects(&TODAY);
    layouts::compressed_contents(&mut builder, &COMPRESSIONS);
    check(finished(builder), Peer::Reads);
}
