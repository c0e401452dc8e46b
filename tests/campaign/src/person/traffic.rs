//! What a client that has been let in sends, and what it makes of what it is sent.

use std::time::{Duration, Instant};

use jam_wire::packet::{Ack, Packet, Publish, QoS, Version};

use super::{Outgoing, Person, World};
use crate::ledger::{Arrival, Step};
use crate::wire::{self, packet_id};

/// PUBLISHes on their way from a client at once.
const WINDOW: usize = 16;
/// Packets that are looked at in one turn.
const TURN: usize = 64;

impl Person {
    // Sending.

    pub(super) fn publish(&mut self, world: &mut World) -> bool {
        let pause = self.habits.pause_micros;
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let ready = connection.subscribed && connection.wire.unsent() < 256 * 1024;
        if pause == 0 || !ready || self.session.outgoing.len() >= WINDOW {
            return false;
        }
        self.publish_at = Instant::now() + Duration::from_micros(world.below(pause * 2) as u64);
        let receiver = u16::try_from(world.below(world.users.into())).map_or(1, |user| user + 1);
        let qos = if world.below(2) == 0 {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        };
        let padding = match world.below(100) {
            0 => 20_000 + world.below(200_000),
            1..10 => world.below(8_000),
            _ => world.below(300),
        };
        let allowed = !world.are_strangers(self.user, receiver);
        let number = world.ledger.publish(self.user, receiver, allowed);
        let id = self.session.free_id();
        let payload = wire::message(self.user, number, padding);
        let publish = wire::publish(&wire::inbox(receiver), &payload, qos, packet_id(id));
        world
            .ledger
            .step(number, Step::Published(connection.number, id, false));
        connection.wire.send(&Packet::Publish(publish.clone()));
        self.session.outgoing.push_back(Outgoing {
            number,
            publish,
            received: false,
        });
        true
    }

    /// PUBACK or PUBREC.
    fn acknowledged(&mut self, ack: &Ack, qos: QoS, world: &mut World) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let is_it = |it: &Outgoing| it.publish.packet_id == Some(ack.packet_id);
        let Some(index) = self.session.outgoing.iter().position(is_it) else {
            world
                .ledger
                .trouble(format!("user {} was sent {ack:?} about nothing", self.user));
            return;
        };
        let it = &mut self.session.outgoing[index];
        if it.publish.qos != qos {
            world
                .ledger
                .violation(it.number, &format!("was acknowledged as {qos:?}"));
        }
        match self.session.errors.remove(&ack.packet_id.get()) {
            Some(why) => world.ledger.refused(it.number, &why),
            None if wire::is_success(ack) => world.ledger.acknowledged(it.number),
            None => world
                .ledger
                .violation(it.number, &format!("was refused without a word: {ack:?}")),
        }
        if qos == QoS::ExactlyOnce && !ack.reason.is_error() {
            it.received = true;
            connection
                .wire
                .send(&Packet::PubRel(Ack::success(ack.packet_id)));
        } else {
            self.session.outgoing.remove(index);
        }
    }

    // Being sent something.

    /// Takes some of what has come; whether there was anything.
    pub(super) fn take_packets(&mut self, world: &mut World) -> bool {
        for turn in 0..TURN {
            let Some(connection) = &mut self.connection else {
                return false;
            };
            match connection.wire.poll() {
                Ok(Some(packet)) => self.take(packet, world),
                Ok(None) => return turn > 0,
                Err(error) => {
                    world.ledger.trouble(format!(
                        "user {} was sent what is no packet: {error}",
                        self.user
                    ));
                    return false;
                }
            }
        }
        true
    }

    fn take(&mut self, packet: Packet, world: &mut World) {
        let slowness = if world.settling {
            1
        } else {
            self.habits.slowness_millis
        };
        let due = Instant::now() + Duration::from_millis(world.below(slowness) as u64);
        match packet {
            Packet::ConnAck(conn_ack) => self.accepted(&conn_ack, world),
            Packet::SubAck(_) => {
                if let Some(connection) = &mut self.connection {
                    connection.subscribed = true;
                    self.session.confirmed = self.habits.lasting;
                }
            }
            Packet::PubAck(ack) => self.acknowledged(&ack, QoS::AtLeastOnce, world),
            Packet::PubRec(ack) => self.acknowledged(&ack, QoS::ExactlyOnce, world),
            Packet::PubComp(ack) => {
                let outgoing = &mut self.session.outgoing;
                outgoing.retain(|it| !(it.received && it.publish.packet_id == Some(ack.packet_id)));
            }
            Packet::PubRel(ack) => {
                self.session.received.remove(&ack.packet_id.get());
                if let Some(connection) = &mut self.connection {
                    connection.todo.push_back((
                        due,
                        Packet::PubComp(Ack::success(ack.packet_id)),
                        None,
                    ));
                }
            }
            Packet::Publish(publish) => self.deliver(&publish, due, world),
            Packet::PingResp => {}
            other => world
                .ledger
                .trouble(format!("user {} was sent {other:?}", self.user)),
        }
    }

    fn deliver(&mut self, publish: &Publish, due: Instant, world: &mut World) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if publish.topic != wire::inbox(self.user) {
            self.session.errors.extend(wire::error(&publish.payload));
            return;
        }
        let (Some(number), Some(id)) = (wire::number(&publish.payload), publish.packet_id) else {
            world
                .ledger
                .trouble(format!("user {} was sent {publish:?}", self.user));
            return;
        };
        let once = publish.qos == QoS::ExactlyOnce;
        let before = self.session.received.get(&id.get()).filter(|_| once);
        if before.is_some_and(|before| *before != number) {
            world.ledger.violation(
                number,
                &format!("came under the id of message {before:?}, which is not released"),
            );
        }
        let again = before.is_some();
        world.ledger.arrived(
            number,
            Arrival {
                user: self.user,
                connection: connection.number,
                session: self.session.number,
                resumed: connection.resumed,
                packet_id: id.get(),
                dup: publish.dup,
                qos: publish.qos,
                again,
                lasting: self.habits.lasting && !self.habits.changes_phones,
            },
        );
        connection.window += 1;
        if self.habits.version == Version::V5
            && connection.window > self.habits.receive_maximum.into()
        {
            world
                .ledger
                .violation(number, "is more than the client takes at once");
        }
        let ack = if once {
            self.session.received.insert(id.get(), number);
            Packet::PubRec(Ack::success(id))
        } else {
            Packet::PubAck(Ack::success(id))
        };
        connection.todo.push_back((due, ack, Some(number)));
    }

    /// Gives the acknowledgements whose time has come, in their order.
    pub(super) fn acknowledge_back(&mut self, now: Instant, world: &mut World) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let mut busy = false;
        while let Some((_, packet, number)) = connection
            .todo
            .pop_front_if(|(due, ..)| *due <= now || world.settling)
        {
            busy = true;
            if let Some(number) = number {
                world
                    .ledger
                    .step(number, Step::AcknowledgedBack(connection.number));
            }
            if matches!(packet, Packet::PubAck(_) | Packet::PubComp(_)) {
                connection.window = connection.window.saturating_sub(1);
            }
            connection.wire.send(&packet);
        }
        busy
    }
}
