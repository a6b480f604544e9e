//! Seek tables of indirect objects.
