//! Requests side by side.

/// What `each` makes of all items, in their order, in so many threads at most, each of which has a stretch of them.
pub(super) fn each<T: Sync, R: Send>(items: &[T], threads: usize, each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let stretch = items.len().div_ceil(threads.max(1)).max(1);
    if stretch >= items.len() {
        return items.iter().map(each).collect();
    }
    let each = &each;
    std::thread::scope(|scope| {
        let running: Vec<_> =
            items.chunks(stretch).map(|part| scope.spawn(move || part.iter().map(each).collect::<Vec<R>>())).collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;

    #[test]
    fn all_of_them_in_order_and_side_by_side() {
        for (items, threads) in [(0, 4), (1, 4), (7, 1), (7, 3), (100, 16), (3, 0)] {
            let items: Vec<usize> = (0..items).collect();
            let doubled: Vec<usize> = items.iter().map(|item| item * 2).collect();
            assert_eq!(super::each(&items, threads, |item| item * 2), doubled);
        }
        // Each waits for the other three.
        let four = Barrier::new(4);
        let met = super::each(&[0; 4], 4, |_| {
            four.wait();
            std::thread::current().id()
        });
        assert_eq!(met.iter().collect::<HashSet<_>>().len(), 4);
    }
}
