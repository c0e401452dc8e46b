// What the chat page makes of the server's refusals (PROTOCOL.md, sections 3 and 4).

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { refusal, refusedLogin } from '../../crates/server/web/chat/words.js'

test('a refusal says what is so: nobody is called no friend, and no inbox full, because the server cannot read or write', () => {
  assert.match(refusal({ category: 'friends', message: 'not friends with the receiver' }, 'Ben'), /not friends/)
  assert.doesNotMatch(refusal({ category: 'friends', message: 'fatal database error' }, 'Ben'), /not friends|Ben/)
  assert.doesNotMatch(refusal({ category: 'mailbox', message: 'the server cannot keep messages at the moment' }, 'Ben'), /full|Ben/)
  assert.match(refusal({ category: 'quota', message: '' }, 'Ben'), /inbox of Ben is full/)
})

test('a lockout is told as one', () => {
  assert.match(refusedLogin({ category: 'spam', message: '' }), /Too many failed logins.*ten minutes/)
})
