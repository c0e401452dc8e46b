//! SUBSCRIBE and UNSUBSCRIBE (PROTOCOL.md, section 5).

use jam_wire::ReasonCode;
use jam_wire::packet::{Packet, QoS, ReasonProperties, SubAck, Subscribe, UnsubAck, Unsubscribe};

use super::OUTPUT_ENOUGH;
use super::established::Established;
use crate::output::Output;
use crate::policy;
use crate::router::Router;
use crate::store::Subscription;
use crate::time::Time;

impl Established {
    pub(super) fn subscribe(
        &mut self,
        subscribe: Subscribe,
        router: &Router,
        output: &mut Output,
        now: Time,
    ) {
        let (user, link) = (self.link.user().clone(), self.link.id());
        let mut wanted = Vec::with_capacity(subscribe.filters.len());
        let mut verdicts = Vec::with_capacity(subscribe.filters.len());
        for filter in subscribe.filters {
            let verdict = policy::authorize_subscribe(&user, &filter.filter);
            verdicts.push(
                verdict
                    .as_ref()
                    .map(|()| filter.qos)
                    .map_err(|refusal| refusal.reason),
            );
            if let Err(refusal) = &verdict {
                router.metrics().refused(refusal);
                self.note_refusal(refusal);
            }
            match verdict {
                // The SUBACK says it all the same.
                Err(_) if output.len() >= OUTPUT_ENOUGH => {}
                Err(refusal) => self.tell(&refusal, None, output),
                Ok(()) => wanted.push((
                    Subscription {
                        topic: (&*filter.filter).into(),
                        qos: filter.qos,
                        no_local: filter.no_local,
                        retain_as_published: filter.retain_as_published,
                        id: subscribe.subscription_id,
                    },
                    filter.retain_handling,
                )),
            }
        }
        let (reply, responder) = self.reserve_reply();
        let (outcomes, work) = router.subscribe(&user, link, wanted, responder, now);
        self.add_work(work);
        let mut outcomes = outcomes.into_iter();
        let codes = verdicts.into_iter().map(|verdict| match verdict {
            Err(reason) => reason,
            Ok(qos) => match (outcomes.next().flatten(), qos) {
                (Some(true), QoS::AtMostOnce) => ReasonCode::Success,
                (Some(true), QoS::AtLeastOnce) => ReasonCode::GrantedQoS1,
                (Some(true), QoS::ExactlyOnce) => ReasonCode::GrantedQoS2,
                (Some(false), _) => ReasonCode::QuotaExceeded,
                (None, _) => ReasonCode::UnspecifiedError,
            },
        });
        let (packet_id, codes) = (subscribe.packet_id, codes.collect());
        let properties = ReasonProperties::default();
        let sub_ack = SubAck {
            packet_id,
            properties,
            codes,
        };
        self.replies.fill(reply, Packet::SubAck(Box::new(sub_ack)));
        self.gate.defer_suback();
        if !router.can_store() {
            self.deliver(router, output, now);
        }
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe, router: &Router) {
        let (user, link) = (self.link.user().clone(), self.link.id());
        let (reply, responder) = self.reserve_reply();
        let (existed, work) = router.unsubscribe(&user, link, &unsubscribe.filters, responder);
        self.add_work(work);
        let code = |existed| {
            if existed {
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            }
        };
        let (packet_id, codes) = (
            unsubscribe.packet_id,
            existed.into_iter().map(code).collect(),
        );
        let properties = ReasonProperties::default();
        let unsub_ack = UnsubAck {
            packet_id,
            properties,
            codes,
        };
        self.replies
            .fill(reply, Packet::UnsubAck(Box::new(unsub_ack)));
    }
}
