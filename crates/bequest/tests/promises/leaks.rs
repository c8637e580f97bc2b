//! Promise 3: nothing leaks. A node's memory is seen by the cause that it holds, armed timers by their count.

use std::sync::Arc;
use std::time::Duration;

use bequest::{CancelScope, Context, inspect};

use crate::clock::Manual;
use crate::drops::Drops;
use crate::poll::poll_once;

const HOUR: Duration = Duration::from_secs(3600);

/// A scope whose node counts its end in `drops`.
fn counted(parent: &Context, drops: &Drops) -> CancelScope {
    parent.with_timeout(HOUR).caused_by(drops.token())
}

#[test]
fn a_dropped_scope_is_gone_at_once_with_its_timer() {
    let root = Context::with_clock(Manual::new());
    let drops = Drops::default();
    let scope = counted(&root, &drops);
    assert!(poll_once(&mut scope.done()).is_pending());
    assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 1);
    drop(scope);
    assert_eq!(drops.count(), 1, "an armed timer holds nothing");
    assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 0);
}

#[test]
fn a_cancel_disarms_the_timer_though_handles_remain() {
    let root = Context::with_clock(Manual::new());
    let scope = root.with_timeout(HOUR);
    assert!(!scope.is_done());
    assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 1);
    scope.cancel();
    assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 0);
}

#[test]
fn a_limit_on_one_await_is_disarmed_with_it() {
    let root = Context::with_clock(Manual::new());
    let mut limited = Box::pin(root.timeout(HOUR, std::future::pending::<()>()));
    let mut sleep = root.sleep(HOUR);
    assert!(poll_once(&mut limited).is_pending() && poll_once(&mut sleep).is_pending());
    assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 2);
    drop((limited, sleep));
    assert_eq!(inspect::on_clock_of(&root).armed_deadlines, 0);
}

#[test]
fn a_node_without_handles_stays_while_something_is_below_it() {
    let drops = Drops::default();
    let root = Context::background().with_cancel();
    let middle = counted(&root, &drops).into_context();
    let leaf = middle.with_cancel();
    drop(middle);
    assert_eq!(drops.count(), 0, "a relay between root and leaf");
    root.cancel();
    assert!(leaf.is_done());
    drop(leaf);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_loop_of_derivations_whose_owners_give_up_does_not_grow() {
    inspect::enable();
    let root = Context::with_clock(Manual::new());
    let mut ctx = root.clone();
    for _ in 0..1000 {
        ctx = ctx.with_cancel().into_context();
        ctx = ctx.with_timeout(Duration::MAX).into_context();
    }
    assert!(
        inspect::on_clock_of(&root).live.len() <= 1,
        "nothing of their own could end them"
    );
    assert!(!ctx.is_done());
}

#[test]
fn a_callback_that_captures_its_own_context_goes_with_its_guard() {
    let drops = Drops::default();
    let scope = counted(&Context::background(), &drops);
    let own = scope.context();
    let guard = scope.after_func(move |_| drop(own));
    drop(scope.into_context());
    assert_eq!(drops.count(), 0, "held by its own callback");
    drop(guard);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_callback_that_captures_its_own_context_goes_with_its_end() {
    let drops = Drops::default();
    let scope = counted(&Context::background(), &drops);
    let own = scope.context();
    scope.after_func(move |_| drop(own)).detach();
    drop(scope);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_detached_callback_keeps_its_context_until_it_has_run() {
    let drops = Drops::default();
    let root = Context::background().with_cancel();
    let scope = counted(&root, &drops);
    let seen = drops.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let callback = move |_| tell.send(seen.count()).unwrap();
    let ctx = scope.into_context();
    ctx.after_func(callback).detach();
    drop(ctx);
    assert_eq!(drops.count(), 0);
    root.cancel();
    assert_eq!(told.try_recv(), Ok(0), "still there while the callback ran");
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_detached_callback_on_what_cannot_end_is_dropped() {
    let drops = Drops::default();
    let roots = [
        Context::background(),
        Context::todo(),
        Context::with_clock(Manual::new()),
        Context::background().with_cancel().without_cancel(),
        Context::background().with_cancel().into_context(),
    ];
    for ctx in &roots {
        let token = drops.token();
        ctx.after_func(move |_| drop(token)).detach();
    }
    assert_eq!(drops.count(), roots.len());
}

#[test]
fn a_detached_callback_keeps_nothing_that_nobody_can_end_any_more() {
    let drops = Drops::default();
    let held = |ctx: &Context| {
        let token = drops.token();
        ctx.after_func(move |_| drop(token)).detach();
    };
    let scope = Context::background().with_cancel();
    held(&scope);
    drop(scope.into_context());
    assert_eq!(drops.count(), 1, "detached before ownership was given up");

    let scope = Context::background().with_cancel();
    let (canceller, ctx) = (scope.canceller(), scope.into_context());
    held(&ctx);
    drop(ctx);
    assert_eq!(drops.count(), 1, "the canceller could still end it");
    drop(canceller);
    assert_eq!(drops.count(), 2);

    let roots = [Context::todo(), Context::todo()];
    let merged = Context::any(&roots).into_context();
    held(&merged);
    drop(merged);
    assert_eq!(drops.count(), 3, "neither root can end");
}

#[test]
fn a_callbacks_captures_go_when_it_is_stopped_or_has_run() {
    let drops = Drops::default();
    let scope = Context::background().with_cancel();
    let register = || {
        let token = drops.token();
        scope.after_func(move |_| drop(token))
    };
    let (one, two, three) = (register(), register(), register());
    assert!(one.stop());
    drop(two);
    assert_eq!(drops.count(), 2);
    scope.cancel();
    assert_eq!(drops.count(), 3);
    drop(three);
}

#[test]
fn a_merge_withdraws_from_every_side() {
    inspect::enable();
    let sides = [
        Context::background().with_cancel(),
        Context::background().with_cancel(),
    ];
    for _ in 0..100 {
        assert!(!Context::any(&sides).is_done());
    }
    let live = inspect::snapshot().live;
    for side in &sides {
        let row = live.iter().find(|row| row.id == side.id()).unwrap();
        assert_eq!((row.children, row.waiting), (0, 0));
    }
}

/// Other tests end scopes meanwhile, so more may be counted than are made here.
#[test]
fn ends_are_all_counted_and_the_last_are_remembered() {
    inspect::enable();
    let before = inspect::snapshot().ends;
    let many = 2 * inspect::REMEMBERED;
    for _ in 0..many {
        Context::background().with_cancel().cancel();
    }
    let now = inspect::snapshot();
    assert_eq!(now.ended.len(), inspect::REMEMBERED);
    assert!(now.ends >= before + many as u64);
}

#[test]
fn a_value_that_holds_its_context_is_no_cycle() {
    use bequest::Key;
    static HELD: Key<(Context, crate::drops::Token)> = Key::new("held");
    let drops = Drops::default();
    let scope = Context::background().with_cancel();
    let ctx = scope.with_value(&HELD, (Context::background(), drops.token()));
    let inner = ctx.context();
    let ctx = ctx.with_value(&HELD, (inner, drops.token()));
    drop(ctx);
    assert_eq!(drops.count(), 2);
}

/// Nobody can end either, so the callback could never run; a node that kept itself for it would be kept for ever.
#[test]
fn a_detached_callback_below_what_nobody_can_end_keeps_nothing() {
    let held = Arc::new(());
    let parent = given_up(&Context::background());
    let child = given_up(&parent);
    let mine = Arc::clone(&held);
    child.after_func(move |_| drop(mine)).detach();
    drop((parent, child));
    assert_eq!(Arc::strong_count(&held), 1);
}

/// The same if the parent is given up last, and the child's handles are gone by then.
#[test]
fn a_detached_callback_goes_when_the_last_who_could_end_it_gives_up() {
    let held = Arc::new(());
    let outer = Context::background().with_cancel();
    let other = Context::background().with_cancel();
    let inner = given_up(&outer);
    let both = give_up(Context::any([&inner, &*other]));
    for ctx in [&inner, &given_up(&inner), &both, &given_up(&both)] {
        let mine = Arc::clone(&held);
        ctx.after_func(move |_| drop(mine)).detach();
    }
    // More children than are looked at under one lock, and the first one's callback is the last to be come to.
    let many: Vec<_> = (0..600).map(|_| given_up(&inner)).collect();
    drop((inner, both));
    assert_eq!(Arc::strong_count(&held), 5);
    drop(give_up(outer));
    drop(many);
    // The merged one can still end with the other; it keeps `inner`, which is above it.
    assert_eq!(Arc::strong_count(&held), 4);
    drop(give_up(other));
    assert_eq!(Arc::strong_count(&held), 1);
}

/// The control: what somebody can still end keeps its callback.
#[test]
fn control_a_detached_callback_below_a_scope_is_kept() {
    let held = Arc::new(());
    let parent = Context::background().with_cancel();
    let child = given_up(&parent);
    let mine = Arc::clone(&held);
    child.after_func(move |_| drop(mine)).detach();
    drop(child);
    assert_eq!(Arc::strong_count(&held), 2);
    parent.cancel();
    assert_eq!(Arc::strong_count(&held), 1);
}

/// A node of its own, since a canceller was made, that nobody has the right to cancel any more.
fn given_up(ctx: &Context) -> Context {
    give_up(ctx.with_cancel())
}

fn give_up(scope: CancelScope) -> Context {
    drop(scope.canceller());
    scope.into_context()
}
