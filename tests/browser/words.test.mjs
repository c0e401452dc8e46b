// What the chat page makes of the server's refusals (PROTOCOL.md, sections 3 and 4).

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { refusal, refusedLogin, shownName } from '../../crates/server/web/chat/words.js'

const said = (reason) => refusal(reason, 'Ben').join('')

test('a refusal says what is so: nobody is called no friend, and no inbox full, because the server cannot read or write', () => {
  assert.match(said({ category: 'friends', message: 'not friends with the receiver' }), /not friends/)
  assert.doesNotMatch(said({ category: 'friends', message: 'fatal database error' }), /not friends|Ben/)
  assert.doesNotMatch(said({ category: 'mailbox', message: 'the server cannot keep messages at the moment' }), /full|Ben/)
  assert.match(said({ category: 'quota', message: '' }), /inbox of Ben is full/)
})

test('a lockout is told as one', () => {
  assert.match(refusedLogin({ category: 'spam', message: '' }), /Too many failed logins.*ten minutes/)
})

test('a name is one line of what is seen; whoever has none is called by the user id', () => {
  const names = {
    'Ann': 'Ann', '  Ann \n\t Smith ': 'Ann Smith', 'A\u202Eb\u2066c\u200B\u0007d\uFEFF': 'Abc d', 'ليلى': 'ليلى', 'می\u200Cخواهم': 'می\u200Cخواهم',
    '👩\u200D👧': '👩\u200D👧', '\u3164': '7', '\u2800 \u200D': '7', '': '7', '\u0301': '7'
  }
  for (const [name, shown] of Object.entries(names)) assert.equal(shownName(name, '7'), shown, JSON.stringify(name))
  assert.equal(shownName('', '\u200B'), '?')
  assert.equal(shownName(`Z${'\u0301'.repeat(500)}`, '7').length, 5)
  assert.ok(shownName('n'.repeat(1_000_000), '7').length <= 100)
})
