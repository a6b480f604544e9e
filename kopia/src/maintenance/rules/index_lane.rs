//! index_lane
