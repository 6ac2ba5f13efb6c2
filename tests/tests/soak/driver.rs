//! The faults of a day, one after another, as a seed has them.

use std::time::{Duration, Instant};

use anyhow::Result;
use dormouse_tests::fleet::{Member, TARGET};
use dormouse_tests::invariants::Down;
use dormouse_tests::sources::Mood;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::world::{CANARY, World};

const SECOND: Duration = Duration::from_secs(1);
/// Between two deaths: the lease, and time for somebody to have led.
const BETWEEN_DEATHS: Duration = Duration::from_secs(25);
const BETWEEN_CUTS: Duration = Duration::from_secs(40);
/// How long an old token is let in after the Secret changed.
const OVERLAP: Duration = Duration::from_secs(7);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Turn,
    Burst,
    Calm,
    Edit,
    Pause,
    Delete,
    Kill,
    Stop,
    Cut,
    Rotate,
}

/// Faults and their shares.
const FAULTS: &[(Fault, u32)] = &[
    (Fault::Turn, 45),
    (Fault::Burst, 6),
    (Fault::Calm, 5),
    (Fault::Edit, 9),
    (Fault::Pause, 9),
    (Fault::Delete, 7),
    (Fault::Kill, 7),
    (Fault::Stop, 4),
    (Fault::Cut, 5),
    (Fault::Rotate, 4),
];

pub(crate) struct Driver {
    random: StdRng,
    names: Vec<String>,
    mend_at: Option<Instant>,
    revoke_at: Option<Instant>,
    died: Option<Instant>,
    cut: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(seed: u64, names: Vec<String>) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            names,
            mend_at: None,
            revoke_at: None,
            died: None,
            cut: None,
        }
    }

    /// Waits a moment, then does the next thing.
    pub(crate) async fn step(&mut self, world: &mut World<'_>) -> Result<()> {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(300..2_500))).await;
        let now = Instant::now();
        if self.mend_at.is_some_and(|at| at <= now) {
            world.note("the network is back");
            world.mend();
            self.mend_at = None;
        }
        if self.revoke_at.is_some_and(|at| at <= now) {
            world.note("the old token is revoked");
            world.revoke();
            self.revoke_at = None;
        }
        // Drawn whether or not it can be done now, so that the seed alone decides what comes next.
        let (fault, name, mood) = (self.fault(), self.name(), self.mood());
        let (seconds, number) = (self.random.random_range(5..15), self.random.random_range(1..=8));
        self.do_(world, fault, &name, mood, seconds, number).await
    }

    async fn do_(
        &mut self,
        world: &mut World<'_>,
        fault: Fault,
        name: &str,
        mood: Mood,
        seconds: u64,
        number: u32,
    ) -> Result<()> {
        let now = Instant::now();
        let may_die = self.died.is_none_or(|died| now > died + BETWEEN_DEATHS) && !world.is_cut_off();
        let may_cut = self.cut.is_none_or(|cut| now > cut + BETWEEN_CUTS) && !world.is_cut_off();
        match (fault, world.member(name)) {
            (Fault::Turn, _) => {
                let shown: String = format!("{mood:?}").chars().take(40).collect();
                world.note(&format!("{name} is {shown}"));
                world.turn(name, mood);
            }
            (Fault::Burst, _) => {
                world.note("a burst: every second source asks for many");
                for name in self.names.iter().step_by(2) {
                    world.turn(name, Mood::Value(f64::from(number) * TARGET));
                }
            }
            (Fault::Calm, _) => {
                world.note("calm: every source says 0");
                for name in &self.names {
                    world.turn(name, Mood::Value(0.0));
                }
            }
            (Fault::Edit, Some(member)) => {
                let changed = Member {
                    max: i64::from(number) + 1,
                    min: i64::from(number.is_multiple_of(4)),
                    cooldown: u64::from(number % 5) + 3,
                    interval: u64::from(number % 3) + 1,
                    ..member
                };
                world.note(&format!("{name} is edited: {changed:?}"));
                world.write(changed).await?;
            }
            (Fault::Pause, Some(_)) => {
                let paused = !world.is_paused(name);
                world.note(&format!(
                    "{name} is {}",
                    if paused { "paused" } else { "un-paused" }
                ));
                world.pause(name, paused).await?;
            }
            (Fault::Delete, Some(_)) => {
                world.note(&format!("{name} is deleted"));
                world.delete(name).await?;
            }
            // Whatever an object that is not there was drawn for, it is made again; but not without an operator, which
            // has to let go of its predecessor first.
            (Fault::Edit | Fault::Pause | Fault::Delete, None) if !world.is_cut_off() => {
                world.note(&format!("{name} is made again"));
                world
                    .write(Member {
                        max: i64::from(number) + 1,
                        ..Self::member(name)
                    })
                    .await?;
            }
            (Fault::Kill | Fault::Stop, _) if may_die => {
                let down = if matches!(fault, Fault::Kill) {
                    Down::Killed
                } else {
                    Down::Stopped
                };
                world.note(&format!("the leader is {down:?}"));
                world.end_leader(down).await?;
                self.died = Some(Instant::now());
            }
            (Fault::Cut, _) if may_cut => {
                world.note(&format!("the network is cut for {seconds} s"));
                world.cut().await?;
                self.cut = Some(now);
                self.mend_at = Some(now + Duration::from_secs(seconds));
            }
            (Fault::Rotate, _) if self.revoke_at.is_none() && !world.was_down(5 * SECOND) => {
                world.note("a new token");
                world.rotate().await?;
                self.revoke_at = Some(Instant::now() + OVERLAP);
            }
            _ => {}
        }
        Ok(())
    }

    /// Undoes what is still wrong, and leaves each source asking for something.
    pub(crate) async fn heal(&mut self, world: &mut World<'_>) -> Result<()> {
        world.note("all faults end");
        world.mend();
        if self.revoke_at.take().is_some() {
            world.revoke();
        }
        for (replicas, name) in (0..5_u32).cycle().zip(self.names.clone().iter()) {
            if world.member(name).is_none() {
                world.write(Self::member(name)).await?;
            }
            if world.is_paused(name) {
                world.pause(name, false).await?;
            }
            world.turn(name, Mood::Value(f64::from(replicas) * TARGET));
        }
        Ok(())
    }

    /// An object as it is at first.
    pub(crate) fn member(name: &str) -> Member {
        let authentication = name
            .starts_with("token-")
            .then(|| crate::world::AUTHENTICATION.to_owned());
        Member {
            authentication,
            ..Member::new(name, 2)
        }
    }

    fn fault(&mut self) -> Fault {
        let sum: u32 = FAULTS.iter().map(|(_, share)| share).sum();
        let mut left = self.random.random_range(0..sum);
        for (fault, share) in FAULTS {
            if left < *share {
                return *fault;
            }
            left -= share;
        }
        Fault::Turn
    }

    fn name(&mut self) -> String {
        let index = self.random.random_range(0..self.names.len());
        self.names[index].clone()
    }

    fn mood(&mut self) -> Mood {
        let value = f64::from(self.random.random_range(1..=6)) * TARGET;
        match self.random.random_range(0..20) {
            0..6 => Mood::Value(0.0),
            6..13 => Mood::Value(value),
            13 => Mood::Hangs,
            14 => Mood::Stalls,
            15 => Mood::Floods,
            16 => Mood::Status(500, CANARY.to_owned()),
            17 => Mood::Says(format!("<html>{CANARY}}}{{")),
            18 => Mood::Throttles(3 * SECOND),
            _ => Mood::Slow(value, SECOND),
        }
    }
}
