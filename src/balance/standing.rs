//! What each node of a cluster may be used for, from what all of them say.
//!
//! Owns the rules: who takes writes, who serves readers, what is done with two
//! that both claim to be the primary and with one of another cluster. Pure:
//! asks nobody, knows no clock.

use millpond_driver::{NodeStatus, Role};

use super::route::Duty;

/// What is known of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// What it said last; `None`: it was never asked with success.
    pub(super) told: Option<NodeStatus>,
    /// The role that the application says it has.
    pub(super) set: Option<Role>,
    /// It has refused a write since it was last asked.
    pub(super) refused: bool,
    /// It takes writes now, as far as this cluster has believed so far.
    pub(super) writes: bool,
    /// It answers.
    pub(super) serving: bool,
}

/// What follows for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) role: Role,
    pub(super) duty: Duty,
    /// Why it is not used although it answers.
    pub(super) out: Option<Out>,
}

/// Why a node that answers is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Out {
    /// It claims to be the primary, and another one is, or has been since.
    Rival,
    /// It belongs to another cluster.
    Stranger,
}

/// The standing of each node. `cluster`: what all of them are to say, which is
/// what most of them do, and of those alike what it has been so far.
///
/// `timeline`: the latest in which writes were taken. A primary of an earlier one
/// stays out, also when the later one is down: its data has divided from what was
/// written since.
pub(super) fn judge(
    nodes: &[Known],
    cluster: &mut Option<Box<str>>,
    timeline: &mut Option<u64>,
) -> Vec<Standing> {
    *cluster = name_of(nodes, cluster.as_deref());
    let mut standings: Vec<_> = nodes.iter().map(|node| alone(node, cluster)).collect();
    let claims = |(index, node): (usize, &Known)| {
        let claimant = claims_to_be_primary(node) && standings[index].out.is_none();
        claimant.then_some(index)
    };
    let claimants: Vec<usize> = nodes.iter().enumerate().filter_map(claims).collect();
    let right = claimants.iter().copied().max_by_key(|index| authority(&nodes[*index]));
    for index in claimants {
        let told = nodes[index].told.as_ref().and_then(|told| told.timeline);
        if Some(index) != right || (told.is_some() && told < *timeline) {
            standings[index].duty = Duty::NONE;
            standings[index].out = Some(Out::Rival);
        } else {
            *timeline = told.max(*timeline);
        }
    }
    standings
}

/// What the cluster is called by most of its nodes.
fn name_of(nodes: &[Known], so_far: Option<&str>) -> Option<Box<str>> {
    let told = |node: &'_ Known| node.told.as_ref().and_then(|told| told.cluster.clone());
    let names: Vec<Box<str>> = nodes.iter().filter_map(told).collect();
    let weight = |name: &str| {
        let votes = names.iter().filter(|other| &***other == name).count();
        (votes, so_far == Some(name))
    };
    // The first of those alike.
    let heavier = |best: &str, name: &str| weight(name) > weight(best);
    names.iter().fold(None, |best, name| match &best {
        Some(best) if !heavier(best, name) => Some(Box::clone(best)),
        _ => Some(Box::clone(name)),
    })
}

/// As if there were no other node.
fn alone(node: &Known, cluster: &Option<Box<str>>) -> Standing {
    let unknown = NodeStatus::default();
    let told = node.told.as_ref().unwrap_or(&unknown);
    let role = node.set.unwrap_or(told.role);
    let mut standing = Standing { role, duty: Duty::NONE, out: None };
    if node.told.is_none() || !node.serving {
        return standing;
    }
    if let Some(name) = &told.cluster {
        if cluster.as_ref().is_some_and(|cluster| cluster != name) {
            standing.out = Some(Out::Stranger);
            return standing;
        }
    }
    let writable = told.writable != Some(false) && !node.refused;
    standing.duty = match role {
        Role::Primary if writable => Duty::WRITE,
        // It serves readers until it is known what has become of it.
        Role::Primary | Role::Replica => Duty::READ,
        _ if writable => Duty::WRITE.with(Duty::READ),
        _ => Duty::READ,
    };
    standing
}

/// Whether it says of itself that it alone takes writes. What the application
/// has set is not in question.
fn claims_to_be_primary(node: &Known) -> bool {
    let told = node.told.as_ref();
    let claims = |told: &NodeStatus| told.role == Role::Primary && told.writable == Some(true);
    node.serving && !node.refused && node.set.is_none() && told.is_some_and(claims)
}

/// Who is right of several primaries: who knows of the latest change of the
/// primary; else the one that is in use, for to change over would divide the
/// data further; else who has written more.
fn authority(node: &Known) -> (Option<u64>, bool, Option<u128>) {
    let told = node.told.as_ref();
    let timeline = told.and_then(|told| told.timeline);
    (timeline, node.writes, told.and_then(|told| told.position))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(role: Role, writable: Option<bool>) -> Known {
        let mut told = NodeStatus::default();
        (told.role, told.writable) = (role, writable);
        Known { told: Some(told), serving: true, ..Known::default() }
    }

    fn primary(timeline: Option<u64>, position: u128) -> Known {
        let mut node = node(Role::Primary, Some(true));
        let told = node.told.as_mut().expect("it has told");
        (told.timeline, told.position) = (timeline, Some(position));
        node
    }

    fn duties(nodes: &[Known]) -> Vec<Duty> {
        judge(nodes, &mut None, &mut None).iter().map(|standing| standing.duty).collect()
    }

    const BOTH: Duty = Duty(3);

    #[test]
    fn a_node_is_used_for_what_it_says_it_is() {
        for (role, writable, duty) in [
            (Role::Primary, Some(true), Duty::WRITE),
            (Role::Primary, None, Duty::WRITE),
            (Role::Primary, Some(false), Duty::READ),
            (Role::Replica, Some(false), Duty::READ),
            (Role::Replica, Some(true), Duty::READ),
            (Role::Peer, Some(true), BOTH),
            (Role::Peer, Some(false), Duty::READ),
            (Role::Standalone, Some(true), BOTH),
            (Role::Unknown, None, BOTH),
            (Role::Unknown, Some(false), Duty::READ),
        ] {
            assert_eq!(duties(&[node(role, writable)]), [duty], "{role:?}, {writable:?}");
        }
    }

    #[test]
    fn what_the_application_says_goes_before_what_the_node_says() {
        let as_replica = Known { set: Some(Role::Replica), ..node(Role::Standalone, Some(true)) };
        let as_primary = Known { set: Some(Role::Primary), ..node(Role::Standalone, Some(true)) };
        let read_only = Known { set: Some(Role::Primary), ..node(Role::Replica, Some(false)) };
        let found = duties(&[as_replica, as_primary, read_only]);
        assert_eq!(found, [Duty::READ, Duty::WRITE, Duty::READ]);
    }

    #[test]
    fn one_that_has_refused_a_write_or_never_answered_takes_none() {
        let refused = Known { refused: true, ..primary(None, 1) };
        let silent = Known { serving: true, set: Some(Role::Primary), ..Known::default() };
        let down = Known { serving: false, ..primary(None, 1) };
        assert_eq!(duties(&[refused, silent, down]), [Duty::READ, Duty::NONE, Duty::NONE]);
    }

    #[test]
    fn of_two_primaries_the_one_of_the_later_timeline_is_right() {
        let old = Known { writes: true, ..primary(Some(1), 900) };
        let nodes = [old, primary(Some(2), 100), node(Role::Replica, Some(false))];
        let standings = judge(&nodes, &mut None, &mut None);
        let found: Vec<_> = standings.iter().map(|it| (it.duty, it.out)).collect();
        let expected = [(Duty::NONE, Some(Out::Rival)), (Duty::WRITE, None), (Duty::READ, None)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_primary_of_an_earlier_timeline_stays_out_though_the_later_one_is_down() {
        let mut timeline = None;
        let mut duties = |nodes: &[Known]| -> Vec<_> {
            let standings = judge(nodes, &mut None, &mut timeline);
            standings.iter().map(|standing| standing.duty).collect()
        };
        let old = || primary(Some(1), 900);
        let new = |serving| Known { serving, ..primary(Some(2), 100) };
        assert_eq!(duties(&[old(), new(true)]), [Duty::NONE, Duty::WRITE]);
        assert_eq!(duties(&[old(), new(false)]), [Duty::NONE, Duty::NONE]);
        assert_eq!(duties(&[primary(Some(3), 50), new(false)]), [Duty::WRITE, Duty::NONE]);
    }

    #[test]
    fn of_two_primaries_without_timelines_the_one_in_use_stays_else_the_one_that_wrote_more() {
        let used = Known { writes: true, ..primary(None, 100) };
        assert_eq!(duties(&[primary(None, 900), used]), [Duty::NONE, Duty::WRITE]);
        assert_eq!(duties(&[primary(None, 900), primary(None, 100)]), [Duty::WRITE, Duty::NONE]);
    }

    #[test]
    fn peers_and_nodes_with_a_role_that_was_set_are_no_rivals() {
        let peer = || node(Role::Peer, Some(true));
        assert_eq!(duties(&[peer(), peer(), peer()]), [BOTH; 3]);
        let set = || Known { set: Some(Role::Primary), ..primary(None, 1) };
        assert_eq!(duties(&[set(), set()]), [Duty::WRITE; 2]);
    }

    #[test]
    fn a_node_of_another_cluster_serves_nobody() {
        let of = |cluster: &str| {
            let mut node = primary(None, 1);
            node.told.as_mut().expect("it has told").cluster = Some(cluster.into());
            node
        };
        let mut cluster = None;
        let replica = node(Role::Replica, Some(false));
        let standings = judge(&[of("7"), of("8"), replica.clone()], &mut cluster, &mut None);
        assert_eq!(standings[1].out, Some(Out::Stranger));
        assert_eq!(standings[1].duty, Duty::NONE);
        assert_eq!((standings[0].duty, standings[2].duty), (Duty::WRITE, Duty::READ));
        assert_eq!(cluster.as_deref(), Some("7"));
        // It is remembered, also when the first is down, and in whatever order.
        let down = Known { serving: false, ..of("7") };
        let standings = judge(&[of("8"), down, replica.clone()], &mut cluster, &mut None);
        assert_eq!(standings[0].out, Some(Out::Stranger));
        // Most of them are right, whoever answered first; and who has left counts no
        // more.
        let standings = judge(&[of("7"), of("8"), of("8")], &mut cluster, &mut None);
        assert_eq!((standings[0].out, cluster.as_deref()), (Some(Out::Stranger), Some("8")));
        let standings = judge(&[of("9"), replica], &mut cluster, &mut None);
        assert_eq!((standings[0].out, cluster.as_deref()), (None, Some("9")));
    }
}
