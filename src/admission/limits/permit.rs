//! A client's place among the limits.

use std::sync::Arc;

use super::Limits;
use crate::admission::identity::{Group, RuleTally, Who};
use crate::admission::place::{NoPlace, Place};
use crate::admission::rules::Rule;
use crate::admission::terms::{Metered, Terms};

/// A client's place; given back on drop. One pointer, since every session has one.
#[derive(Debug)]
pub struct ClientPermit(Box<Held>);

#[derive(Debug)]
struct Held {
    limits: Arc<Limits>,
    /// Taken out when there is no place for who the client has turned out to be.
    place: Option<Place>,
}

impl ClientPermit {
    pub(super) fn new(limits: &Arc<Limits>, place: Place) -> ClientPermit {
        ClientPermit(Box::new(Held {
            limits: limits.clone(),
            place: Some(place),
        }))
    }

    fn place(&self) -> &Place {
        self.0
            .place
            .as_ref()
            .expect("taken out only by what consumes the permit")
    }

    /// With whom the client is counted: by its address first, then by each rule about it.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.place().groups
    }

    /// What the rules about the client say of its commands.
    pub fn terms(&self) -> Terms {
        let place = self.place();
        let counted_by =
            |tally: &RuleTally| place.groups.iter().any(|it| std::ptr::eq(&*it.rule, tally));
        self.0.limits.rules(place.route).terms(counted_by)
    }

    /// The accounts out of which its commands and bytes are paid.
    pub fn metered(&self) -> impl Iterator<Item = &Arc<Group>> {
        let is_metered = |group: &&Arc<Group>| {
            Metered::ALL
                .iter()
                .any(|of| group.rule.rate(*of).is_limit())
        };
        self.groups().iter().filter(is_metered)
    }

    /// The rule by which its writes are refused when the node's memory is nearly used up.
    pub fn refuses_writes_by(&self) -> Option<Box<str>> {
        let place = self.place();
        let rules = self.0.limits.rules(place.route);
        let is_its = |rule: &&Rule| {
            place
                .groups
                .iter()
                .any(|it| Arc::ptr_eq(&it.rule, &rule.tally))
        };
        let mut own = rules.rules.iter().filter(is_its);
        let rule = own.find(|rule| rule.says_refuse_writes_above().is_some())?;
        Some(rule.tally.name.clone())
    }

    /// The rule whose share the client takes from.
    pub fn share(&self) -> Option<&Arc<RuleTally>> {
        self.place().share.as_ref()
    }

    /// Gives the place to another client, which may be of another route.
    ///
    /// # Errors
    /// There is still no place for that one. This one has been given back.
    pub fn hand_over(
        mut self,
        route: u16,
        who: &Who<'_>,
        now: u64,
    ) -> Result<ClientPermit, NoPlace> {
        let place = self.0.place.take().expect("as above");
        let limits = self.0.limits.clone();
        let rules = limits.rules(route);
        let handed = limits.book().hand_over(&place, route, &rules, who, now);
        Ok(ClientPermit::new(&limits, handed?))
    }

    /// Whether the client is an operator's.
    pub fn is_operator(&self) -> bool {
        self.place().is_operator
    }

    /// Whether it was counted by rules that have become others since.
    pub fn is_outdated(&self) -> bool {
        let place = self.place();
        self.0.limits.rules(place.route).shape != place.shape
    }

    /// Counts the client anew, by who it is now.
    ///
    /// # Errors
    /// There is no place for who it has turned out to be; its old one is given back.
    pub fn become_who(mut self, who: &Who<'_>, now: u64) -> Result<ClientPermit, NoPlace> {
        let mut place = self.0.place.take().expect("as above");
        let limits = &self.0.limits;
        let rules = limits.rules(place.route);
        limits.book().change(&mut place, &rules, who, now)?;
        self.0.place = Some(place);
        Ok(self)
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        if let Some(place) = &self.0.place {
            self.0.limits.book().leave(place);
        }
    }
}
