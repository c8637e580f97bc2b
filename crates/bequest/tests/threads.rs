//! Promise 6: no thread until a timer. Threads are the process's, so this is a program without a test harness.

use std::time::Duration;

use bequest::{Context, inspect};

fn main() {
    #[cfg(target_os = "linux")]
    no_thread_until_a_timer();
}

#[cfg(target_os = "linux")]
fn no_thread_until_a_timer() {
    let hour = Duration::from_secs(3600);
    assert_eq!(threads(), ["threads"]);

    let root = Context::background().with_cancel();
    let scopes: Vec<_> = (0..100).map(|_| root.with_timeout(hour)).collect();
    let guard = root.after_func(|_| {});
    let past = root.with_timeout(Duration::ZERO);
    assert!(past.is_done() && past.wait().is_timeout());
    drop(guard);
    assert!(scopes.iter().all(|scope| scope.remaining().is_some()));
    assert_eq!(inspect::statistics().armed_deadlines, 0);
    assert_eq!(threads().len(), 1, "nobody has looked");

    assert!(!scopes[0].is_done());
    assert_eq!(inspect::statistics().armed_deadlines, 1);
    assert_eq!(threads().len(), 2, "the first look starts the timers' thread");
    assert!(scopes.iter().all(|scope| !scope.is_done()));
    assert_eq!(threads().len(), 2, "and there is one for all");
    drop(scopes);
    assert_eq!(inspect::statistics().armed_deadlines, 0);

    let short = root.with_timeout(Duration::from_millis(1));
    assert!(short.wait().is_timeout());
    assert_eq!(threads().len(), 2, "no thread for callbacks without one");
    let (tell, told) = std::sync::mpsc::channel();
    let short = root.with_timeout(Duration::from_millis(1));
    let _guard = short.after_func(move |_| tell.send(()).unwrap());
    told.recv().unwrap();
    let mut names = threads();
    names.sort();
    assert_eq!(
        names,
        ["bequest-callbac", "bequest-timer", "threads"],
        "named, and cut by the system"
    );
}

/// The names of this process's threads. One that was just started may not have its own yet, so that is waited for.
#[cfg(target_os = "linux")]
fn threads() -> Vec<String> {
    let list = || -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
            .map(|name| name.trim().to_string())
            .collect()
    };
    loop {
        let names = list();
        let unnamed = names.iter().filter(|name| name.starts_with("threads")).count();
        if unnamed == 1 {
            return names.into_iter().map(|name| main_name(&name)).collect();
        }
        std::thread::yield_now();
    }
}

/// The main thread bears the name of the program, which ends in a hash.
#[cfg(target_os = "linux")]
fn main_name(name: &str) -> String {
    name.split('-')
        .next()
        .filter(|first| *first == "threads")
        .unwrap_or(name)
        .to_string()
}
