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

    /// The jobs of a process that has just been started on this folder.
    async fn open(&self, ctx: &Context) -> Arc<Jobs> {
        let store = Store::open(ctx, None, &self.0).await.unwrap();
        let limits = Limits {
            time: Duration::from_secs(60),
            running: 2,
        };
        Jobs::open(ctx, limits, store).await.unwrap()
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
