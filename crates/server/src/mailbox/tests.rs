//! What any kind of store promises: each is held to it by [`suite`], in tests of its own.

pub(in crate::mailbox) mod clock;
pub(in crate::mailbox) mod kept;
pub(in crate::mailbox) mod model;
pub(in crate::mailbox) mod purging;
pub(in crate::mailbox) mod setting;
mod superseding;

/// The tests of a kind of store, of which the place is `$kind`; so many cases of calls at random.
macro_rules! suite {
    ($kind:ty, $cases:expr) => {
        mod suite {
            use proptest::prelude::*;

            use super::*;
            use crate::mailbox::tests::{clock, kept, model, purging};

            $crate::mailbox::tests::suite!(@each $kind;
                kept::messages_come_back_with_what_is_known_of_them;
                kept::when_a_message_expires_comes_back;
                kept::sessions_come_back_with_their_packet_ids_in_order;
                kept::what_a_session_is_by_now_comes_back;
                kept::the_last_retained_message_of_a_topic_comes_back;
                kept::a_claim_is_kept_as_long_as_its_session_and_its_message;
                kept::a_session_that_ends_leaves_nothing_in_the_file;
                kept::answers_come_in_order_and_numbers_are_never_used_again;
                kept::what_was_found_at_the_start_is_removed_when_it_ends;
                kept::a_session_that_was_found_at_the_start_goes_on_and_ends;
                kept::a_will_that_is_due_comes_back_as_it_was;
                kept::whose_everything_is_comes_back_as_it_was;
                kept::sessions_with_numbers_far_apart_come_back_with_what_is_theirs;
                kept::a_long_table_comes_back_in_order;
                kept::which_account_wrote_a_message_comes_back;
                kept::packet_ids_come_back;
                kept::a_packet_id_belongs_to_its_sender;
                purging::an_overview_counts_and_shows_nothing;
                purging::a_server_is_asked_to_purge;
                purging::one_sender_s_messages_are_purged;
                purging::a_purge_at_the_start_takes_one_sender_s_messages_up_to_the_request;
                purging::a_purge_leaves_what_is_retained;
                clock::a_new_mailbox_remembers_nothing;
                clock::the_last_record_comes_back;
            );

            proptest! {
                #![proptest_config(ProptestConfig {
                    cases: $cases, failure_persistence: None, ..ProptestConfig::default()
                })]

                #[test]
                fn what_is_kept_is_what_the_calls_say(steps in model::steps()) {
                    model::what_is_kept_is_what_the_calls_say::<$kind>(steps)?;
                }
            }
        }
    };
    (@each $kind:ty; $($room:ident::$name:ident;)*) => {
        $(
            #[test]
            fn $name() {
                $room::$name::<$kind>();
            }
        )*
    };
}

pub(in crate::mailbox) use suite;
