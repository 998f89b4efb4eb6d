//! How long each takes: `cargo bench --bench time`.

#![allow(missing_docs, clippy::expect_used, clippy::panic)]

mod hot_path;

use criterion::{Criterion, criterion_group, criterion_main};

fn measure(criterion: &mut Criterion) {
    for (name, mut path) in hot_path::paths() {
        criterion.bench_function(name, |bencher| bencher.iter(&mut path));
    }
}

criterion_group!(benches, measure);
criterion_main!(benches);
