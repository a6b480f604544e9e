//! Arithmetic in GF(2^8) with the polynomial 0x11D, and Lagrange interpolation in it.
//!
//! A systematic Vandermonde code is interpolation: the data shards are the values of a polynomial at 0, 1, …, D-1, parity
//! shard `i` is its value at `D + i`, and any D shards determine the others. So one formula both encodes and repairs,
//! and no matrix is ever inverted.

use std::sync::LazyLock;

const POLYNOMIAL: u16 = 0x11D;

/// Powers of the generator 2 (twice over, so that sums of logarithms need no reduction) and logarithms.
const TABLES: ([u8; 510], [u8; 256]) = tables();

/// All products: `PRODUCTS[a][b]` is `a * b`.
static PRODUCTS: LazyLock<Box<[[u8; 256]; 256]>> = LazyLock::new(|| {
    let mut products = Box::new([[0; 256]; 256]);
    for a in 0..=255u8 {
        for b in 0..=255u8 {
            products[usize::from(a)][usize::from(b)] = multiply(a, b);
        }
    }
    products
});

const fn tables() -> ([u8; 510], [u8; 256]) {
    let mut power = [0u8; 510];
    let mut logarithm = [0u8; 256];
    let mut value = 1u16;
    let mut exponent = 0;
    while exponent < 255 {
        power[exponent] = value as u8;
        power[exponent + 255] = value as u8;
        logarithm[value as usize] = exponent as u8;
        value <<= 1;
        if value & 0x100 != 0 {
            value ^= POLYNOMIAL;
        }
        exponent += 1;
    }
    (power, logarithm)
}

fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    TABLES.0[usize::from(TABLES.1[usize::from(a)]) + usize::from(TABLES.1[usize::from(b)])]
}

/// `b` must not be 0: the callers divide by differences of distinct points.
fn divide(a: u8, b: u8) -> u8 {
    if a == 0 {
        return 0;
    }
    TABLES.0[usize::from(TABLES.1[usize::from(a)]) + 255 - usize::from(TABLES.1[usize::from(b)])]
}

/// What each of the values at the distinct `points` contributes to the value at `at`, which is none of them.
pub(super) fn interpolate(points: &[u8], at: u8) -> Vec<u8> {
    let whole = points.iter().fold(1, |product, &point| multiply(product, at ^ point));
    let coefficient = |&point: &u8| {
        let others = points.iter().filter(|&&other| other != point);
        let weight = others.fold(at ^ point, |product, &other| multiply(product, point ^ other));
        divide(whole, weight)
    };
    points.iter().map(coefficient).collect()
}

/// Adds `coefficient` times each byte of `from` to `sum`. The shorter of the two ends it.
pub(super) fn add_multiple(sum: &mut [u8], coefficient: u8, from: &[u8]) {
    let row = &PRODUCTS[usize::from(coefficient)];
    for (sum, &byte) in sum.iter_mut().zip(from) {
        *sum ^= row[usize::from(byte)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_quotients_belong_together() {
        assert_eq!(multiply(2, 0x80), 0x1D);
        for a in 0..=255u8 {
            assert_eq!(multiply(a, 1), a);
            for b in 1..=255u8 {
                assert_eq!(divide(multiply(a, b), b), a);
            }
        }
    }

    #[test]
    fn parity_rows_are_those_of_the_vandermonde_code() {
        let data: Vec<u8> = (0..6).collect();
        assert_eq!(interpolate(&data, 6), [7, 6, 5, 4, 3, 2]);
        assert_eq!(interpolate(&data, 7), [6, 7, 4, 5, 2, 3]);
    }
}
