//! Jobs without a server: the lock, the row, the shutdown.

use super::*;

/// A folder that is gone with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("bequest-jobs-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    /// The jobs of a process that has just been started on this folder, and is not alone.
    async fn open(&self, ctx: &Context) -> Arc<Jobs> {
        self.start(ctx, true).await
    }

    async fn start(&self, ctx: &Context, is_shared: bool) -> Arc<Jobs> {
        let store = Store::open(ctx, None, &self.0).await.unwrap();
        let limits = Limits {
            time: Duration::from_secs(60),
            running: 2,
        };
        Jobs::open(ctx, limits, store, is_shared).await.unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[tokio::test]
async fn a_second_process_leaves_the_jobs_of_the_first_alone() {
    let (ctx, folder) = (Context::background(), Folder::new("second"));
    let first = folder.open(&ctx).await;
    let id = first.start(&ctx).await.unwrap();
    let second = folder.open(&ctx).await;
    assert_eq!(second.get(&ctx, id).await.unwrap().state, JobState::Running);
    assert_eq!(first.shut_down(Duration::ZERO).await, 1);
    assert_eq!(second.get(&ctx, id).await.unwrap().state, JobState::Ended);
}

#[tokio::test]
async fn a_job_is_cancelled_by_way_of_another_node() {
    let (ctx, folder) = (Context::background(), Folder::new("elsewhere"));
    let (first, second) = (folder.open(&ctx).await, folder.open(&ctx).await);
    let (id, other) = (first.start(&ctx).await.unwrap(), first.start(&ctx).await.unwrap());
    let job = second
        .cancel(&ctx, id, "not needed".into(), "192.0.2.1".into())
        .await
        .unwrap();
    assert_eq!(
        (job.state, job.reason.as_deref()),
        (JobState::Cancelled, Some("not needed"))
    );
    assert!(
        job.detail.contains("not needed, says 192.0.2.1"),
        "{}",
        job.detail
    );
    assert_eq!(first.get(&ctx, other).await.unwrap().state, JobState::Running);
    let again = second.cancel(&ctx, id, "twice".into(), "192.0.2.1".into()).await;
    assert!(matches!(again, Err(Refused::Over(JobState::Cancelled))));
    first.shut_down(Duration::ZERO).await;
}

/// The control: a node that believes itself alone, and says of a job that runs that it is over.
#[tokio::test]
async fn control_who_looks_only_at_home_cancels_nothing() {
    let (ctx, folder) = (Context::background(), Folder::new("home"));
    let (first, second) = (folder.open(&ctx).await, folder.start(&ctx, false).await);
    let id = first.start(&ctx).await.unwrap();
    let refused = second
        .cancel(&ctx, id, "not needed".into(), "192.0.2.1".into())
        .await;
    assert!(matches!(refused, Err(Refused::Over(JobState::Running))));
    assert_eq!(first.shut_down(Duration::ZERO).await, 1);
}

#[tokio::test]
async fn a_request_that_has_ended_begins_no_job() {
    let (ctx, folder) = (Context::background(), Folder::new("ended"));
    let jobs = folder.open(&ctx).await;
    let request = ctx.with_cancel();
    request.cancel_for(Reason::ClientGone);
    assert!(matches!(jobs.start(&request).await, Err(Refused::Ended(_))));
    assert!(
        jobs.list(&ctx, 10).await.unwrap().is_empty(),
        "nothing was written"
    );
    assert_eq!(jobs.places.available_permits(), 2, "and its place is free");
}

#[tokio::test]
async fn a_job_outlives_its_request_and_not_the_shutdown() {
    let (ctx, folder) = (Context::background(), Folder::new("outlives"));
    let jobs = folder.open(&ctx).await;
    let request = ctx.with_cancel();
    let id = jobs.start(&request).await.unwrap();
    request.cancel_for(Reason::ResponseEnded);
    assert_eq!(jobs.get(&ctx, id).await.unwrap().state, JobState::Running);
    jobs.shut_down(Duration::ZERO).await;
    let job = jobs.get(&ctx, id).await.unwrap();
    assert_eq!(job.reason.as_deref(), Some("shutting down"));
    assert!(matches!(jobs.start(&ctx).await, Err(Refused::ShuttingDown)));
}
