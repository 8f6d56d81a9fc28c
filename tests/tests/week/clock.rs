//! Time that is not waited for: what is due next happens next. Calls that take time are futures
//! that this clock wakes; nothing runs beside them, so a seed says everything.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::world::{Event, World};

pub(super) const SECOND: u64 = 1000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// The world as everything in it reaches it.
pub(super) type Shared = Rc<RefCell<World>>;

/// A number of milliseconds to be waited for.
pub(super) struct Wait {
    world: Shared,
    length: u64,
    until: Option<u64>,
}

/// Lets so many milliseconds go by.
pub(super) fn wait(world: &Shared, length: u64) -> Wait {
    Wait {
        world: Rc::clone(world),
        length,
        until: None,
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut world = this.world.borrow_mut();
        match this.until {
            Some(until) if until <= world.now => Poll::Ready(()),
            Some(_) => Poll::Pending,
            None => {
                this.until = Some(world.now + this.length);
                let task = world.task;
                world.after(this.length, Event::Task(task));
                Poll::Pending
            }
        }
    }
}

type Course<T> = Pin<Box<dyn Future<Output = T>>>;

/// What is under way.
pub(super) struct Tasks<T> {
    world: Shared,
    next: u64,
    running: BTreeMap<u64, Course<T>>,
}

impl<T> Tasks<T> {
    pub(super) fn new(world: &Shared) -> Self {
        Self {
            world: Rc::clone(world),
            next: 0,
            running: BTreeMap::new(),
        }
    }

    /// Begins something, which first happens when the clock comes to it.
    pub(super) fn spawn(&mut self, course: impl Future<Output = T> + 'static) {
        let id = self.next;
        self.next += 1;
        self.running.insert(id, Box::pin(course));
        self.world.borrow_mut().after(0, Event::Task(id));
    }

    /// Goes on with a task, and returns what it came to if it has ended.
    pub(super) fn go_on(&mut self, id: u64) -> Option<T> {
        let course = self.running.get_mut(&id)?;
        self.world.borrow_mut().task = id;
        match course
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(done) => {
                self.running.remove(&id);
                Some(done)
            }
            Poll::Pending => None,
        }
    }

    /// Drops all but those that `stays` keeps.
    pub(super) fn drop_unless(&mut self, mut stays: impl FnMut() -> bool) {
        self.running.retain(|_, _| stays());
    }
}
