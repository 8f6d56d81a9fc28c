//! Calls from iapd to Incus and Azure: they take time, and anything may happen to them on the way
//! there and on the way back.

use std::rc::Rc;

use super::clock::{SECOND, Shared, wait};
use super::model_incus::No;
use super::world::{Event, Late, Mishap, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Incus,
    Azure,
}

/// How one life of iapd reaches the world.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) world: Shared,
    pub(super) life: u64,
}

/// The longest that a call that gets no answer is waited for.
const DEADLINE: u64 = 30 * SECOND;
/// When a request that was given up may take effect at last.
const LATEST: u64 = 90 * SECOND;

impl Calls {
    pub(super) fn new(world: &Shared) -> Self {
        Self {
            life: world.borrow().life,
            world: Rc::clone(world),
        }
    }

    pub(super) async fn wait(&self, length: u64) {
        wait(&self.world, length).await;
        self.lives_on().await;
    }

    /// A daemon that was killed calls nobody any more.
    async fn lives_on(&self) {
        if self.world.borrow().life != self.life {
            std::future::pending::<()>().await;
        }
    }

    pub(super) async fn incus<T>(
        &self,
        effect: impl FnOnce(&mut World) -> Result<T, No>,
    ) -> Result<T, No> {
        self.call(Server::Incus, None, effect).await
    }

    pub(super) async fn azure<T>(
        &self,
        effect: impl FnOnce(&mut World) -> Result<T, No>,
    ) -> Result<T, No> {
        self.call(Server::Azure, None, effect).await
    }

    /// Calls. What is given as `late` may take effect although no answer came.
    pub(super) async fn call<T>(
        &self,
        server: Server,
        late: Option<Late>,
        effect: impl FnOnce(&mut World) -> Result<T, No>,
    ) -> Result<T, No> {
        self.lives_on().await;
        let fate = self.fate(server);
        let (there, back) = {
            let mut world = self.world.borrow_mut();
            match server {
                Server::Incus => (world.between(1, 20), world.between(1, 40)),
                Server::Azure => (world.between(20, 200), world.between(20, 400)),
            }
        };
        match fate {
            Fate::Refused(no) => {
                wait(&self.world, there).await;
                return Err(no);
            }
            Fate::LostBefore => {
                if let Some(late) = late {
                    let mut world = self.world.borrow_mut();
                    if world.chance(300) {
                        world.count("request took effect late");
                        let length = world.between(SECOND, LATEST);
                        world.after(length, Event::Late(late));
                    }
                }
                let length = self.world.borrow_mut().between(10, DEADLINE);
                wait(&self.world, length).await;
                return Err(No::Lost);
            }
            Fate::LostAfter | Fate::Answered => wait(&self.world, there).await,
        }
        let answer = effect(&mut self.world.borrow_mut());
        if fate == Fate::LostAfter {
            let length = self.world.borrow_mut().between(10, DEADLINE);
            wait(&self.world, length).await;
            return Err(No::Lost);
        }
        wait(&self.world, back).await;
        answer
    }

    fn fate(&self, server: Server) -> Fate {
        let mut world = self.world.borrow_mut();
        if world.calm {
            return Fate::Answered;
        }
        let down = match server {
            Server::Incus => Mishap::IncusDown,
            Server::Azure => Mishap::AzureDown,
        };
        if world.is_wrong(down) {
            world.count("call to a server that is down");
            return match world.random.bool() {
                true => Fate::LostBefore,
                false => Fate::Refused(No::Lost),
            };
        }
        if server == Server::Azure && world.is_wrong(Mishap::AzureWantsPeace) {
            world.count("call that Azure put off");
            return Fate::Refused(No::Paused(30 * SECOND));
        }
        let of_thousand = match world.is_wrong(Mishap::CallsGetLost) {
            true => 150,
            false => 3,
        };
        if !world.chance(of_thousand) {
            return Fate::Answered;
        }
        match world.random.bool() {
            true => {
                world.count("request lost");
                Fate::LostBefore
            }
            false => {
                world.count("answer lost");
                Fate::LostAfter
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Answered,
    Refused(No),
    LostBefore,
    LostAfter,
}

impl World {
    /// iapd cannot know of an instance: it is no fault that it is one too many.
    pub(super) fn uncount(&mut self, name: &str) {
        if let Some(machine) = self.incus.machines.get_mut(name) {
            machine.uncounted = true;
        }
    }

    /// Lets a request take effect that nobody waits for any more.
    pub(super) fn late(&mut self, late: Late) {
        self.tell(|| format!("late: {late:?}"));
        match late {
            Late::Create(order) => {
                drop(self.create(&order));
                self.uncount(&order.name);
            }
            Late::Stop(name) => {
                if self.incus.machines.get(&name).is_some_and(|m| !m.is_made) {
                    drop(self.force_stop(&name));
                }
            }
            Late::Start(name, agent) => {
                if self.incus.machines.contains_key(&name) {
                    drop(self.start(&name, agent));
                }
            }
            Late::Register(name) => drop(self.register(&name)),
        }
    }
}
