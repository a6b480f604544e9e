//! Directory objects: a strict streaming parser, fast for the field order that Kopia writes.
