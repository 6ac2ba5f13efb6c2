//! Wrong input on the real cluster: each kind of it is named in the object's own status and Events, changes no replica,
//! disturbs nobody else, and is forgotten once it is put right.

#[path = "bad_input/cases.rs"]
mod cases;
#[path = "bad_input/fields.rs"]
mod fields;
#[path = "bad_input/neighbour.rs"]
mod neighbour;
#[path = "bad_input/references.rs"]
mod references;
#[path = "bad_input/sources.rs"]
mod sources;
#[path = "bad_input/sqs.rs"]
mod sqs;
#[path = "bad_input/undecodable.rs"]
mod undecodable;

use anyhow::Result;
use dormouse_tests::stage::all;
use dormouse_tests::upstream::Answer;
use dormouse_tests::{SqsServer, Stage, Upstream, logs};

use crate::cases::Good;
use crate::neighbour::Neighbour;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_operator_can_refuse() -> Result<()> {
    let stage = Stage::set("bad-fields").await?;
    let upstream = Upstream::start(Answer::value(10.0)).await?;
    let good = Good::new(&upstream);
    let neighbour = Neighbour::settle(&stage).await?;
    references::prepare(&stage).await?;
    let wrong: Vec<_> = fields::all(&good)
        .into_iter()
        .chain(references::all(&good))
        .collect();
    let refused = all(wrong
        .into_iter()
        .map(|wrong| (wrong.name.clone(), cases::refused_until_put_right(&stage, wrong))));
    let odd = async {
        tokio::try_join!(
            references::missing_but_not_needed(&stage, &good),
            references::a_name_that_is_too_long(&stage, &good)
        )
    };
    let (refused, odd) = tokio::join!(refused, odd);
    refused.and(odd.map(drop))?;
    neighbour.was_not_disturbed()?;
    logs::assert_nothing_denied(&stage.cluster, &stage.installation).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typo_stops_nothing_that_ran() -> Result<()> {
    let stage = Stage::set("bad-edit").await?;
    cases::edited_badly(&stage).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_fails_is_never_a_zero() -> Result<()> {
    let stage = Stage::set("bad-source").await?;
    let neighbour = Neighbour::settle(&stage).await?;
    let modes = sources::modes();
    all(modes
        .into_iter()
        .map(|mode| (mode.name.to_owned(), sources::fails_and_comes_back(&stage, mode))))
    .await?;
    neighbour.was_not_disturbed()?;
    let canaries = [sources::CANARY, sources::TOKEN];
    let (installation, name) = (&stage.installation, stage.namespace.name());
    logs::assert_no_canary(&stage.cluster, installation, name, &canaries).await?;
    sources::the_url_is_told_without_its_query(&stage).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_queues_that_are_missing_forbidden_or_gone() -> Result<()> {
    let stage = Stage::set("bad-queue").await?;
    let moto = SqsServer::start().await?;
    let strict = sqs::StrictServer::start().await?;
    let ((), ()) = tokio::try_join!(
        sqs::missing_until_created(&stage, &moto),
        sqs::forbidden_until_the_key_is_right(&stage, &strict)
    )?;
    let canaries = [sqs::SECRET, sqs::WRONG_SECRET, sqs::WRONG_KEY];
    logs::assert_no_canary(
        &stage.cluster,
        &stage.installation,
        stage.namespace.name(),
        &canaries,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_no_type_can_decode() -> Result<()> {
    let stage = Stage::set("bad-shape").await?;
    let neighbour = Neighbour::settle(&stage).await?;
    undecodable::told_so_and_nobody_else_harmed(&stage, &neighbour).await
}
