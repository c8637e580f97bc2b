//! almost-enough: a chain of flags; a check walks it upwards, and nobody is told.

use almost_enough::ChildStopper;

use crate::tree::Tree;

pub struct Stopper(ChildStopper);

impl Tree for Stopper {
    #[inline(always)]
    fn root() -> Stopper {
        Stopper(ChildStopper::new())
    }

    #[inline(always)]
    fn child(&self) -> Stopper {
        Stopper(self.0.child())
    }

    #[inline(always)]
    fn cancel(&self) {
        self.0.cancel();
    }

    #[inline(always)]
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}
