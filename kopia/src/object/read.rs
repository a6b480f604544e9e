//! Reading whole objects.
