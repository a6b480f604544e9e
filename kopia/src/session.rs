//! Sessions and their markers.
