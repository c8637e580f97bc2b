//! A thread that is preempted while it holds a lock of the tree: the others must sleep, and go on when it does.
//!
//! A thread that derives and drops without end is stopped by a signal at an unlucky instant, again and again, sometimes
//! inside a lock. Meanwhile another one works on the same parent. It must get through or sleep in the kernel; burning
//! the processor until the holder runs again is what a bare spin lock does, and the control shows it doing so.
#![allow(unsafe_code)] // Signals.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bequest::Context;

const STOPS: usize = 400;
const HANGS: Duration = Duration::from_secs(30);
/// In the control, this long without sleep is taken as never.
const BURNS: Duration = Duration::from_millis(300);

static STOPPED: AtomicBool = AtomicBool::new(false);
static GO_ON: AtomicBool = AtomicBool::new(true);

/// Holds the thread that it interrupts until it may go on. Only what is allowed in a signal handler.
extern "C" fn hold(_signal: libc::c_int) {
    STOPPED.store(true, Ordering::SeqCst);
    while !GO_ON.load(Ordering::SeqCst) {
        let nap = libc::timespec {
            tv_sec: 0,
            tv_nsec: 20_000,
        };
        // SAFETY: a valid duration; the call may be made in a handler.
        unsafe { libc::nanosleep(&nap, std::ptr::null_mut()) };
    }
    STOPPED.store(false, Ordering::SeqCst);
}

fn install() {
    // SAFETY: the handler does only what a handler may; the structure is wholly initialized.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = hold as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
}

/// Stops the thread until [`go_on`].
fn stop(thread: libc::pthread_t) {
    GO_ON.store(false, Ordering::SeqCst);
    // SAFETY: the thread is alive: it is joined after the last stop.
    assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
    until("the thread is held", || STOPPED.load(Ordering::SeqCst));
}

fn go_on() {
    GO_ON.store(true, Ordering::SeqCst);
    until("the thread goes on", || !STOPPED.load(Ordering::SeqCst));
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < HANGS, "never: {what}");
        thread::yield_now();
    }
}

/// What the kernel says of a thread. It is read without allocating: the holder may have been stopped inside the allocator.
struct Stat(File);

impl Stat {
    fn of(thread: i32) -> Stat {
        Stat(File::open(format!("/proc/self/task/{thread}/stat")).unwrap())
    }

    /// Whether the kernel has the thread asleep.
    fn sleeps(&self) -> bool {
        let mut text = [0; 512];
        let length = self.0.read_at(&mut text, 0).unwrap_or(0);
        let name_ends = text[..length].iter().rposition(|byte| *byte == b')');
        name_ends.is_some_and(|end| text[..length].get(end + 2) == Some(&b'S'))
    }
}

/// What came of it when the holder was stopped.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The other thread got through every time or slept.
    Slept(usize),
    Burned,
}

/// Two threads do `work`; one is stopped again and again.
fn contend(work: impl Fn() + Send + Sync + 'static, patience: Duration) -> Outcome {
    let work = Arc::new(work);
    let over = Arc::new(AtomicBool::new(false));
    let (tell, told) = mpsc::channel();
    let held = thread::spawn({
        let (work, over) = (Arc::clone(&work), Arc::clone(&over));
        move || {
            // SAFETY: no precondition.
            tell.send(unsafe { libc::pthread_self() }).unwrap();
            while !over.load(Ordering::Relaxed) {
                work();
            }
        }
    });
    let holder = told.recv().unwrap();

    let (rounds, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let number = Arc::new(AtomicI32::new(0));
    let other = thread::spawn({
        let (work, over) = (Arc::clone(&work), Arc::clone(&over));
        let (rounds, done, number) = (Arc::clone(&rounds), Arc::clone(&done), Arc::clone(&number));
        move || {
            // SAFETY: no precondition.
            number.store(unsafe { libc::gettid() }, Ordering::SeqCst);
            while !over.load(Ordering::SeqCst) {
                if done.load(Ordering::SeqCst) < rounds.load(Ordering::SeqCst) {
                    (0..20).for_each(|_| work());
                    done.fetch_add(1, Ordering::SeqCst);
                }
                thread::yield_now();
            }
        }
    });
    until("the other thread runs", || number.load(Ordering::SeqCst) != 0);
    let stat = Stat::of(number.load(Ordering::SeqCst));

    let mut outcome = Outcome::Slept(0);
    for stop_number in 0..STOPS {
        // At no regular instant.
        thread::sleep(Duration::from_micros(20 + (stop_number as u64 * 37) % 100));
        stop(holder);
        rounds.fetch_add(1, Ordering::SeqCst);
        let began = Instant::now();
        let through = || done.load(Ordering::SeqCst) == rounds.load(Ordering::SeqCst);
        let mut asleep = 0;
        while !through() && asleep < 20 {
            asleep = if stat.sleeps() { asleep + 1 } else { 0 };
            if began.elapsed() > patience {
                outcome = Outcome::Burned;
                break;
            }
            thread::yield_now();
        }
        if let (Outcome::Slept(times), false) = (&mut outcome, through()) {
            *times += 1;
        }
        go_on();
        until("the other thread gets through", through);
        if outcome == Outcome::Burned {
            break;
        }
    }
    over.store(true, Ordering::SeqCst);
    held.join().unwrap();
    other.join().unwrap();
    outcome
}

/// One after the other, since there is one handler for the process.
#[test]
fn a_preempted_holder_lets_others_sleep_and_delays_no_more_than_itself() {
    install();
    let root = Context::background().with_cancel();
    let outcome = contend(
        move || {
            let child = root.with_cancel();
            assert!(!child.is_done());
            let mut wait = Box::pin(root.done());
            assert!(crate::poll::poll_once(&mut wait).is_pending());
        },
        HANGS,
    );
    assert!(matches!(outcome, Outcome::Slept(_)), "{outcome:?}");

    // The control: the same on a lock that spins.
    let locked = AtomicBool::new(false);
    let kept = AtomicUsize::new(0);
    let outcome = contend(
        move || {
            while locked.swap(true, Ordering::Acquire) {
                std::hint::spin_loop();
            }
            (0..200).for_each(|_| _ = kept.fetch_add(1, Ordering::Relaxed));
            locked.store(false, Ordering::Release);
        },
        BURNS,
    );
    assert_eq!(outcome, Outcome::Burned, "the test sees a lock that burns");
}
