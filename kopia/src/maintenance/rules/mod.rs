//! Pure rules: facts in, plan out.
