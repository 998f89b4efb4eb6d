//! Measures: `drive memory --scale 0.1`, `drive all`.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use idlewatch_bench::drive::candidate::{Candidate, Places};
use idlewatch_bench::drive::measure::{Measure, Plan};
use idlewatch_bench::drive::{Result, report};

/// Measures idlewatch, the floor and the peers on the same load.
#[derive(Debug, Parser)]
struct Args {
    /// A measure, or `all`, which writes bench/RESULTS.md too.
    #[arg(value_parser = measures)]
    what: What,
    /// 0.1 for a tenth of the load.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Whom to measure; all that are installed where not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Candidate>,
    /// The length of `soak`, in minutes.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// The picture that `soak` draws.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/soak.svg"))]
    picture: PathBuf,
    /// The monitor.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/idlewatch"))]
    idlewatch: PathBuf,
}

#[derive(Clone, Debug)]
struct What(Vec<Measure>);

fn measures(name: &str) -> std::result::Result<What, String> {
    match name {
        "all" => Ok(What(Measure::ALL.to_vec())),
        name => Measure::from_str(name, false).map(|measure| What(vec![measure])).map_err(|_| {
            let names = Measure::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
            format!("all, or one of: {}", names.join(", "))
        }),
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    let plan = plan(&args)?;
    let mut rows = Vec::new();
    for measure in &args.what.0 {
        rows.extend(measure.run(&plan)?);
    }
    if args.what.0.len() > 1 {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md");
        std::fs::write(results, report::document(&rows, args.scale))?;
    }
    print!("{}", report::table(&rows));
    Ok(())
}

fn plan(args: &Args) -> Result<Plan> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let programs = std::env::current_exe()?.parent().ok_or("no folder")?.to_owned();
    let disk = target.join("run");
    let places = Places {
        programs,
        idlewatch: args.idlewatch.clone(),
        peers: target.join("peers"),
        disk,
        picture: args.picture.clone(),
    };
    let wanted = |candidate: &Candidate| args.only.is_empty() || args.only.contains(candidate);
    let (candidates, missing): (Vec<_>, Vec<_>) =
        Candidate::ALL.into_iter().filter(wanted).partition(|candidate| candidate.is_installed(&places));
    missing.iter().for_each(|candidate| eprintln!("not installed: {}", candidate.name()));
    Ok(Plan { places, candidates, scale: args.scale, minutes: args.minutes })
}
