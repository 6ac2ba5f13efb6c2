//! What a request that finds nobody home waits for, on the real cluster: one interceptor, one operator, the example that
//! users copy.
//!
//! ```text
//! request ──> scale changed ··· scheduler, kubelet, container runtime ··· application listens ──> answer
//!        ours                            the platform's                                     ours
//! ```

mod cold;
mod edges;
mod first_byte;
mod floor;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use dormouse_tests::{Cluster, Installation, Namespace};

use self::cold::{Sample, cold_starts};
use self::first_byte::Buckets;
use self::floor::{FloorSample, floor};
use crate::figures::Figures;
use crate::plane::percentile;
use crate::steps::{load_average, say};

/// For everything.
pub(crate) const LIMIT: Duration = Duration::from_secs(40 * 60);
/// Cold starts of each kind.
const COLD_STARTS: usize = 40;
/// First answers of pods, of all kinds together.
const FIRST_BYTES: usize = 200;
/// The kinds: what figures are called, how many milliseconds after its start the application listens, and the goal over the
/// floor.
const KINDS: [(&str, u64, f64); 2] = [("cold_total", 0, 20.0), ("cold_late_app", 300, 60.0)];

/// Measures how long a cold start takes.
#[derive(clap::Args, Clone)]
pub(crate) struct Arguments {
    /// Where the figures go as JSON
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Changes with the programs
    #[arg(long, default_value = "bench")]
    build: String,
    /// Cold starts of each kind
    #[arg(long, default_value_t = COLD_STARTS)]
    cold_starts: usize,
    /// First answers of pods, of all kinds together: beyond the cold starts above, these are not compared with the floor
    #[arg(long, default_value_t = FIRST_BYTES)]
    first_bytes: usize,
    /// Only steps whose name has this in it: edges, cold
    #[arg(long, default_value = "")]
    only: String,
    /// Leave the cluster as it was found: it goes on
    #[arg(long)]
    clear: bool,
}

/// Goes through all steps.
pub(crate) async fn all(arguments: &Arguments, figures: &mut Figures) -> Result<()> {
    let cluster = Cluster::connect().await?;
    let note = "waiting for a processor before the start";
    figures.add("load", load_average(), "processes", None, note);
    let installation = Installation::standard()
        .set("logging.operator.level=info")
        .set("logging.interceptor.level=info")
        .set(format!(
            "podAnnotations.keda.dormouse\\.dev/build={}",
            arguments.build
        ))
        .set(format!(
            "podAnnotations.interceptor.dormouse\\.dev/build={}",
            arguments.build
        ));
    installation.install(&cluster).await?;
    let outcome = steps(arguments, &cluster, &installation, figures).await;
    if arguments.clear {
        Installation::standard().install(&cluster).await?;
    }
    outcome
}

async fn steps(
    arguments: &Arguments,
    cluster: &Cluster,
    installation: &Installation,
    figures: &mut Figures,
) -> Result<()> {
    if "edges".contains(&arguments.only) {
        edges::all(cluster, installation, figures).await?;
    }
    if "cold".contains(&arguments.only) {
        let (mut first_bytes, mut straight) = (Buckets::new(), Vec::new());
        for kind in KINDS {
            let (counts, floors) = cold(arguments, cluster, installation, kind, figures).await?;
            for (bound, count) in counts {
                *first_bytes.entry(bound).or_default() += count;
            }
            straight.extend(floors.iter().map(|floor| floor.first_byte));
        }
        first_byte::add(&first_bytes, straight, figures);
    }
    Ok(())
}

/// Cold starts of an application that listens so many milliseconds after its start, and as many of the bare platform. Gives
/// how soon the interceptor had their first bytes, and what the platform took.
async fn cold(
    arguments: &Arguments,
    cluster: &Cluster,
    installation: &Installation,
    (name, late, goal): (&str, u64, f64),
    figures: &mut Figures,
) -> Result<(Buckets, Vec<FloorSample>)> {
    say(&format!(
        "cold starts of an application that listens {late} ms after its start"
    ));
    let asleep = Namespace::create(cluster, "bench-cold").await?;
    let by_hand = Namespace::create(cluster, "bench-floor").await?;
    let cold = cold_starts(cluster, installation, &asleep, late).await?;
    let floor = floor(cluster, &by_hand, late).await?;
    let (mut samples, mut floors) = (Vec::new(), Vec::new());
    // In turn: what else the machine does is the same for both.
    for _ in 0..arguments.cold_starts {
        samples.push(cold.sample().await?);
        floors.push(floor.sample().await?);
    }
    // For the tail that those few do not have.
    for _ in samples.len()..arguments.first_bytes / KINDS.len() {
        cold.sample().await?;
    }
    // Of this namespace alone, and while it is there: the series go with their route.
    let first_bytes = first_byte::so_far(cluster, installation, asleep.name()).await?;
    let of = |value: fn(&Sample) -> f64| sorted(samples.iter().map(value));
    let of_floor = |value: fn(&FloorSample) -> f64| sorted(floors.iter().map(value));
    let (ours, totals) = (of(Sample::ours), of(|sample| sample.total));
    let bare = of_floor(|floor| floor.total);
    let median = |sorted: &[f64]| percentile(sorted, 0.5);
    let scale = median(&of(|sample| sample.to_scale)).unwrap_or(f64::NAN);
    let answer = median(&of(|sample| sample.listening_to_answer)).unwrap_or(f64::NAN);
    let note = format!(
        "median of {}: request -> scale {scale:.1}, listening -> answer {answer:.1}",
        samples.len()
    );
    figures.add(format!("{name}_over_floor"), median(&ours), "ms", goal, note);
    let known = of(|sample| sample.to_scale + sample.known_to_answer);
    let slice = median(&of(|sample| sample.address_to_slice)).unwrap_or(f64::NAN);
    let note = format!(
        "request -> scale, and listening and the pod's address known -> answer; pod's address -> its slice {slice:.1}"
    );
    figures.add(format!("{name}_of_ours"), median(&known), "ms", None, note);
    let same = of_floor(FloorSample::of_the_same_parts);
    let answer = median(&of_floor(|floor| floor.listening_to_answer)).unwrap_or(f64::NAN);
    let note = format!(
        "the parts of {name}_over_floor, of the bare platform: its patch, listening -> first answer {answer:.1}"
    );
    figures.add(format!("{name}_floor_by_parts"), median(&same), "ms", None, note);
    let p90 = percentile(&totals, 0.9).unwrap_or(f64::NAN);
    let patch = median(&of_floor(|floor| floor.patch)).unwrap_or(f64::NAN);
    figures.add(
        format!("{name}_median"),
        median(&totals),
        "ms",
        None,
        format!("request -> answer; p90 {p90:.1}"),
    );
    figures.add(
        format!("{name}_floor"),
        median(&bare),
        "ms",
        None,
        format!("a bare patch of /scale -> first answer of the pod; the patch {patch:.1}"),
    );
    let (low, high) = interval(&totals, &bare);
    let difference = median(&totals)
        .zip(median(&bare))
        .map(|(total, floor)| total - floor);
    let note = format!("95% interval {low:.1} to {high:.1}");
    figures.add(format!("{name}_raw_difference"), difference, "ms", None, note);
    Ok((first_bytes, floors))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The interval in which the difference of the medians lies with 95%, by drawing from the samples again and again.
fn interval(ours: &[f64], theirs: &[f64]) -> (f64, f64) {
    const DRAWS: usize = 2000;
    let drawn = |values: &[f64]| {
        let mut drawn: Vec<f64> = (0..values.len())
            .filter_map(|_| values.get(rand::random_range(0..values.len())).copied())
            .collect();
        drawn.sort_by(f64::total_cmp);
        percentile(&drawn, 0.5).unwrap_or(f64::NAN)
    };
    let mut differences: Vec<f64> = (0..DRAWS).map(|_| drawn(ours) - drawn(theirs)).collect();
    differences.sort_by(f64::total_cmp);
    let at = |share| percentile(&differences, share).unwrap_or(f64::NAN);
    (at(0.025), at(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_around_the_difference_and_narrow_where_the_samples_are() {
        let ours: Vec<f64> = (0..40).map(|number| 500.0 + f64::from(number % 5)).collect();
        let theirs: Vec<f64> = (0..40).map(|number| 480.0 + f64::from(number % 5)).collect();
        let (low, high) = interval(&ours, &theirs);
        assert!(
            (15.0..=20.0).contains(&low) && (20.0..=25.0).contains(&high),
            "{low} {high}"
        );
    }
}
