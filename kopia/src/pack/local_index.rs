//! local_index
