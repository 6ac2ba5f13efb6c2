//! Nobody home: the request waits, the application wakes, and nothing is lost. What every user of the example sees.

#[path = "http_wake/burst.rs"]
mod burst;
#[path = "http_wake/first.rs"]
mod first;
#[path = "http_wake/rate.rs"]
mod rate;
#[path = "http_wake/sleeps_and_wakes.rs"]
mod sleeps_and_wakes;
