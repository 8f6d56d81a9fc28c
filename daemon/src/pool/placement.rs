//! Which member of a cluster a new agent goes to, and its turn there: creations are bound by the
//! processors of the host that they happen on, so each member has a gate of its own. Without a
//! cluster there is one gate and no choice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use crate::members::{Member, Members};

use super::gate::{Gate, Urgency, Urgent};
use super::room;
use super::status::PoolKey;

/// How long others come before a member on which a creation failed: as long as a cluster takes to
/// call a member offline.
const SHUNNED: Duration = Duration::from_secs(20);

/// All pools share it.
pub struct Placement {
    members: watch::Receiver<Arc<Members>>,
    /// The gate of a server that is no cluster.
    only: Arc<Gate>,
    width: usize,
    urgency: Urgency,
    load: Mutex<Load>,
}

/// What is on the members.
#[derive(Default)]
struct Load {
    gates: BTreeMap<String, Arc<Gate>>,
    /// Agents by member, as each pool saw them last.
    seen: BTreeMap<PoolKey, BTreeMap<String, usize>>,
    /// Those on their way there.
    coming: BTreeMap<String, usize>,
    /// Members on which a creation failed: others come first until then. The cluster notices late
    /// that a member is lost.
    shunned: BTreeMap<String, Instant>,
}

/// Where a new agent may go.
pub struct Wish<'a> {
    /// A member or a group (`@name`); anywhere without.
    pub target: Option<&'a str>,
    /// Members that get none.
    pub leaving: &'a BTreeSet<String>,
    /// The storage pool of its root disk, where that is known.
    pub storage: Option<&'a str>,
}

impl Wish<'_> {
    /// Returns whether a member takes it, full or not.
    pub fn fits(&self, member: &Member) -> bool {
        member.takes(self.target) && !self.leaving.contains(&member.name)
    }
}

/// Why there is no place for a new agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSeat {
    /// No member takes it.
    NoMember,
    /// Those that would have no room.
    Full,
}

/// A place for one new agent. Counts until it is dropped.
pub struct Seat {
    placement: Arc<Placement>,
    /// The member; `None` without a cluster.
    pub member: Option<String>,
    gate: Arc<Gate>,
}

impl Seat {
    /// Says that nothing could be created there.
    pub fn failed(&self) {
        if let Some(member) = &self.member {
            let until = Instant::now() + SHUNNED;
            self.placement.load().shunned.insert(member.clone(), until);
        }
    }

    /// Waits for a launch's turn there.
    pub async fn turn(&self) -> OwnedSemaphorePermit {
        self.gate.pass().await
    }

    /// Waits for a spare's turn there.
    pub async fn last_turn(&self) -> OwnedSemaphorePermit {
        self.gate.pass_last().await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(member) = &self.member {
            let mut load = self.placement.load();
            if let Some(coming) = load.coming.get_mut(member) {
                *coming = coming.saturating_sub(1);
            }
        }
    }
}

impl Placement {
    /// Makes it, with so many creations at a time where there is no cluster.
    pub fn new(members: watch::Receiver<Arc<Members>>, width: usize) -> Self {
        let urgency = Urgency::default();
        Self {
            members,
            only: Arc::new(Gate::new(width, urgency.clone())),
            width,
            urgency,
            load: Mutex::default(),
        }
    }

    /// Returns a receiver of the members.
    pub fn watch(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Keeps spares from being made, as long as the answer lives.
    pub fn urgent(&self) -> Urgent {
        self.urgency.hold()
    }

    /// Returns how many creations one pool may have under way.
    pub fn width(&self) -> usize {
        self.members.borrow().cores().max(self.width)
    }

    /// Takes in where a pool's agents are.
    pub fn report(&self, pool: &PoolKey, agents: BTreeMap<String, usize>) {
        let mut load = self.load();
        if agents.is_empty() {
            load.seen.remove(pool);
        } else {
            load.seen.insert(pool.clone(), agents);
        }
    }

    /// Chooses the member with the fewest agents for its processors, among those that take one
    /// and have room for it.
    pub fn choose(self: &Arc<Self>, wish: &Wish<'_>) -> Result<Seat, NoSeat> {
        let members = Arc::clone(&self.members.borrow());
        if !members.is_cluster() {
            return Ok(Seat {
                placement: Arc::clone(self),
                member: None,
                gate: Arc::clone(&self.only),
            });
        }
        let mut load = self.load();
        let open = members.all.values().filter(|member| wish.fits(member));
        let mut open = open.peekable();
        if open.peek().is_none() {
            return Err(NoSeat::NoMember);
        }
        let short = |name: &str| room::member_shortage(&members, name, wish.storage);
        let open = open.filter(|member| short(&member.name).is_none());
        let now = Instant::now();
        load.shunned.retain(|_, until| *until > now);
        // Compared as fractions; the first name wins a tie.
        let chosen = open.min_by(|a, b| {
            let shunned = |member: &Member| load.shunned.contains_key(&member.name);
            let (here, there) = (load.on(&a.name) * b.cores, load.on(&b.name) * a.cores);
            (shunned(a), here).cmp(&(shunned(b), there))
        });
        let chosen = chosen.ok_or(NoSeat::Full)?;
        *load.coming.entry(chosen.name.clone()).or_default() += 1;
        let gate = load.gates.entry(chosen.name.clone());
        let gate = gate.or_insert_with(|| Arc::new(Gate::new(chosen.cores, self.urgency.clone())));
        let gate = Arc::clone(gate);
        Ok(Seat {
            placement: Arc::clone(self),
            member: Some(chosen.name.clone()),
            gate,
        })
    }

    fn load(&self) -> std::sync::MutexGuard<'_, Load> {
        self.load.lock().expect("no panic while held")
    }
}

impl Load {
    fn on(&self, member: &str) -> usize {
        let seen = self.seen.values().filter_map(|pool| pool.get(member));
        seen.sum::<usize>() + self.coming.get(member).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;
    use crate::incus::ClusterMember;
    use crate::members::{Amount, HostRoom};

    fn placement(members: &[(&str, usize)]) -> (Arc<Placement>, watch::Sender<Arc<Members>>) {
        let list = members.iter().map(|(name, _)| ClusterMember {
            name: (*name).into(),
            status: "Online".into(),
            groups: vec!["default".into()],
            ..ClusterMember::default()
        });
        let mut all = Members::of(list.collect());
        for (name, cores) in members {
            all.all.get_mut(*name).unwrap().cores = *cores;
        }
        let (sender, receiver) = watch::channel(Arc::new(all));
        (Arc::new(Placement::new(receiver, 2)), sender)
    }

    fn chosen(placement: &Arc<Placement>, target: Option<&str>) -> Option<Seat> {
        choose(placement, target, &[]).ok()
    }

    fn choose(
        placement: &Arc<Placement>,
        target: Option<&str>,
        leaving: &[&str],
    ) -> Result<Seat, NoSeat> {
        placement.choose(&Wish {
            target,
            leaving: &leaving.iter().map(|name| (*name).to_owned()).collect(),
            storage: Some("fast"),
        })
    }

    fn key(name: &str) -> PoolKey {
        PoolKey {
            name: name.into(),
            project: "default".into(),
            azure_url: "https://dev.azure.com/org".into(),
            azure_pool: name.into(),
        }
    }

    #[test]
    fn agents_spread_by_the_processors_of_the_members() {
        let (placement, _members) = placement(&[("a", 2), ("b", 4)]);
        let seats: Vec<Seat> = (0..6).filter_map(|_| chosen(&placement, None)).collect();
        let on = |name: &str| {
            let here = seats.iter().filter(|s| s.member.as_deref() == Some(name));
            here.count()
        };
        assert_eq!((on("a"), on("b")), (2, 4));
    }

    #[test]
    fn what_all_pools_have_on_a_member_counts_and_a_seat_given_up_does_not() {
        let (placement, _members) = placement(&[("a", 1), ("b", 1)]);
        placement.report(&key("x"), BTreeMap::from([("a".into(), 1)]));
        placement.report(&key("y"), BTreeMap::from([("a".into(), 1)]));
        let first = chosen(&placement, None).unwrap();
        assert_eq!(first.member.as_deref(), Some("b"));
        drop(first);
        placement.report(&key("x"), BTreeMap::new());
        placement.report(&key("y"), BTreeMap::new());
        assert_eq!(
            chosen(&placement, None).unwrap().member.as_deref(),
            Some("a")
        );
    }

    #[test]
    fn targets_and_members_that_leave_are_heeded() {
        let (placement, _members) = placement(&[("a", 1), ("b", 1)]);
        let on_b = chosen(&placement, Some("b")).unwrap();
        assert_eq!(on_b.member.as_deref(), Some("b"));
        assert!(chosen(&placement, Some("@gpu")).is_none());
        let seat = choose(&placement, None, &["a"]).ok().unwrap();
        assert_eq!(seat.member.as_deref(), Some("b"));
        let none = choose(&placement, Some("a"), &["a"]).err();
        assert_eq!(none, Some(NoSeat::NoMember));
    }

    #[test]
    fn a_full_member_gets_nothing_while_others_do() {
        let (placement, members) = placement(&[("a", 8), ("b", 1)]);
        let fill = |names: &[&str]| {
            let space = |free| HostRoom {
                memory: None,
                storage: [(
                    "fast".into(),
                    Amount {
                        free,
                        total: 1 << 40,
                    },
                )]
                .into(),
            };
            let mut now = Members::clone(&members.borrow());
            now.rooms = [
                ("a".to_owned(), space(1 << 39)),
                ("b".to_owned(), space(1 << 39)),
            ]
            .into();
            let full = names.iter().map(|name| ((*name).to_owned(), space(0)));
            now.rooms.extend(full);
            members.send_replace(Arc::new(now));
        };
        fill(&["a"]);
        let seats: Vec<Seat> = (0..3).filter_map(|_| chosen(&placement, None)).collect();
        let on_b = |seat: &&Seat| seat.member.as_deref() == Some("b");
        assert_eq!(seats.iter().filter(on_b).count(), 3);
        assert_eq!(choose(&placement, Some("a"), &[]).err(), Some(NoSeat::Full));
        fill(&["a", "b"]);
        assert_eq!(choose(&placement, None, &[]).err(), Some(NoSeat::Full));
        fill(&[]);
        let seat = chosen(&placement, None).unwrap();
        assert_eq!(seat.member.as_deref(), Some("a"));
    }

    #[test]
    fn a_member_where_a_creation_failed_comes_last_for_a_while() {
        let (placement, _members) = placement(&[("a", 1), ("b", 1)]);
        chosen(&placement, None).unwrap().failed();
        let seats: Vec<Seat> = (0..3).filter_map(|_| chosen(&placement, None)).collect();
        assert!(seats.iter().all(|seat| seat.member.as_deref() == Some("b")));
        assert!(
            chosen(&placement, Some("a")).is_some(),
            "where there is no other"
        );
    }

    #[tokio::test]
    async fn each_member_has_a_gate_of_its_own() {
        let (placement, _members) = placement(&[("a", 1), ("b", 1)]);
        let first = chosen(&placement, Some("a")).unwrap();
        let _turn = first.turn().await;
        let second = chosen(&placement, Some("a")).unwrap();
        assert!(poll!(pin!(second.turn())).is_pending());
        let other = chosen(&placement, Some("b")).unwrap();
        assert!(poll!(pin!(other.turn())).is_ready());
    }
}
