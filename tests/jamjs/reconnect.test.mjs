// When it connects, and when it does not: each rule on a clock that the test moves.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Browser, settle } from './browser.mjs'
import { Faults } from './faults.mjs'
import { clientId, connected, page, reconnected, started, state } from './page.mjs'

const DAY = 24 * 3600 * 1000
const MOST = 1 - 1e-9

/** How long it waits after this, in milliseconds. */
async function waitAfter (one, what) {
  const { browser } = one.tab
  what()
  await settle()
  assert.equal(state(one).state, 'waiting')
  const wait = state(one).retryAt - one.tab.now()
  const before = one.tab.sockets.length
  await browser.advance(Math.max(0, wait - 1))
  if (wait > 0) assert.equal(one.tab.sockets.length, before, 'too early')
  await browser.advance(2)
  assert.equal(one.tab.sockets.length, before + 1, 'it did not connect')
  return wait
}

/** That it stays away by itself, and comes when it is asked to. */
async function staysAway (one, expected) {
  const before = one.tab.sockets.length
  assert.equal(state(one).state, expected)
  one.tab.window.dispatchEvent(new Event('online'))
  one.tab.show(true)
  await one.tab.browser.advance(DAY)
  one.tab.window.dispatchEvent(new Event('online'))
  await one.tab.browser.advance(DAY)
  assert.equal(one.tab.sockets.length, before, 'it has connected by itself')
  await one.jam.start()
  await settle()
  assert.equal(one.tab.sockets.length, before + 1, 'start() did not connect')
}

test('the CONNECT goes on with the session of this device, and it subscribes to four topics', async () => {
  const one = await started(new Browser())
  assert.deepEqual([one.socket.url, one.socket.protocol], ['ws://host/mqtt', 'mqtt'])
  one.socket.accept()
  await settle()
  const [connect, subscribe] = one.socket.take()
  assert.deepEqual(connect, { type: 'connect', flags: 0xC0, keepAlive: 30, properties: { 0x11: 30 * 24 * 3600, 0x21: 16, 0x27: 16 << 20 }, clientId, user: '1', token: 'secret' })
  assert.deepEqual(subscribe.filters, [['/1/inbox', 1], ['/1/receipts', 1], ['/1/presence', 0], ['/1/friends', 0]])
  assert.deepEqual(one.heard.state.map(({ state }) => state), ['connecting', 'connected'])
})

test('the device id is made once for each user and browser', async () => {
  const browser = new Browser()
  const seen = []
  for (const user of ['1', '1', '2']) {
    const one = await started(browser, { user, device: undefined })
    one.socket.open()
    seen.push(one.socket.take('connect')[0].clientId)
    await one.jam.stop()
    await settle()
  }
  for (const id of seen) assert.match(id, /^[12]:web-[0-9a-f]{16}$/)
  assert.equal(seen[0], seen[1])
  assert.notEqual(seen[0].slice(2), seen[2].slice(2))
})

test('a disk that is full keeps nobody out', async () => {
  const faults = new Faults()
  const browser = new Browser({ indexedDB: faults.factory() })
  faults.full = () => true
  const first = await connected(browser, { device: undefined })
  assert.equal(state(first).state, 'connected')
  await first.jam.stop()
  faults.full = () => false
  await (await connected(browser, { device: undefined })).jam.stop()
  faults.full = () => true
  const again = await connected(browser, { device: undefined })
  assert.equal(state(again).state, 'connected')
})

test('a wait is random from 0 to twice the last one\'s most, and a minute at most', async () => {
  const one = await started(new Browser())
  one.tab.chance = MOST
  for (const most of [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]) {
    const wait = await waitAfter(one, () => one.socket.drop())
    assert.ok(Math.abs(wait - most) <= 1, `${wait} of ${most}`)
  }
  one.tab.chance = 0
  assert.equal(await waitAfter(one, () => one.socket.drop()), 0)
  one.tab.chance = 0.25
  assert.equal(await waitAfter(one, () => one.socket.drop()), 15_000)
})

test('thirty seconds of connection begin the waits anew, and less do not', async () => {
  const one = await started(new Browser())
  one.tab.chance = MOST
  for (let round = 0; round < 3; round++) await waitAfter(one, () => one.socket.drop())
  await reconnected(one)
  await one.tab.browser.advance(29_900)
  assert.ok(Math.abs(await waitAfter(one, () => one.socket.drop()) - 4000) <= 1)
  await reconnected(one)
  await one.tab.browser.advance(30_000)
  one.socket.pingresp()
  assert.ok(Math.abs(await waitAfter(one, () => one.socket.drop()) - 500) <= 1)
})

test('the network and a page that becomes visible cut a wait short, at most once a second', async () => {
  const one = await started(new Browser())
  const { browser } = one.tab
  one.tab.chance = MOST
  for (let round = 0; round < 6; round++) await waitAfter(one, () => one.socket.drop())
  one.socket.drop()
  await browser.advance(1000)
  one.tab.show(false)
  await settle()
  assert.equal(one.tab.sockets.length, 7, 'a hidden page is no reason')
  one.tab.show(true)
  await settle()
  assert.equal(one.tab.sockets.length, 8)
  for (let round = 0; round < 50; round++) {
    one.socket.drop()
    one.tab.window.dispatchEvent(new Event('online'))
    one.tab.show(true)
    await browser.advance(100)
  }
  assert.ok(one.tab.sockets.length <= 8 + 5, `${one.tab.sockets.length - 8} in five seconds`)
  assert.ok(one.tab.sockets.length >= 8 + 4)
})

for (const [what, asks] of [['start()', (one) => one.jam.start()], ['the network', (one) => one.tab.window.dispatchEvent(new Event('online'))]]) {
  test(`an attempt that hangs is given up for ${what}, when it is 3 s old`, async () => {
    const one = await started(new Browser())
    const [first] = one.tab.sockets
    await one.tab.browser.advance(500)
    for (let asked = 0; asked < 20; asked++) asks(one)
    await settle()
    assert.equal(one.tab.sockets.length, 1, 'it has not had the time')
    await one.tab.browser.advance(2600)
    assert.deepEqual([one.tab.sockets.length, first.readyState], [2, 3])
    await one.tab.browser.advance(20_000)
    assert.equal(one.tab.sockets.length, 2, 'nobody has asked again')
    asks(one)
    await settle()
    assert.equal(one.tab.sockets.length, 3)
    await reconnected(one)
    await one.tab.browser.advance(10_000)
    assert.deepEqual([state(one).state, one.tab.sockets.length], ['connected', 3])
  })

  test(`a token that does not come is asked for again, for ${what}`, async () => {
    let asked = 0
    const one = await started(new Browser(), { token: () => ++asked === 1 ? new Promise(() => {}) : 'good' })
    await one.tab.browser.advance(5000)
    asks(one)
    await settle()
    assert.deepEqual([asked, one.tab.sockets.length], [2, 1])
    await one.tab.browser.advance(30_000)
    assert.equal(one.tab.sockets.length, 1, 'the first one is not waited for')
  })
}

test('an attempt that was about to be given up goes on when it is answered', async () => {
  const one = await started(new Browser())
  one.socket.answersPings = true
  await one.tab.browser.advance(1000)
  await one.jam.start()
  await settle()
  one.socket.accept()
  await one.tab.browser.advance(300_000)
  assert.deepEqual([state(one).state, one.tab.sockets.length], ['connected', 1])
})

test('the network is back in a hidden page: it connects', async () => {
  const one = await started(new Browser())
  one.tab.chance = MOST
  for (let round = 0; round < 6; round++) await waitAfter(one, () => one.socket.drop())
  one.socket.drop()
  one.tab.show(false)
  await one.tab.browser.advance(1000)
  one.tab.window.dispatchEvent(new Event('online'))
  await settle()
  assert.equal(one.tab.sockets.length, 8)
})

test('a wall clock that steps changes no wait', async () => {
  const one = await started(new Browser())
  one.tab.chance = MOST
  one.socket.drop()
  await settle()
  one.tab.browser.wall += 365 * DAY
  await one.tab.browser.advance(490)
  assert.equal(one.tab.sockets.length, 1)
  one.tab.browser.wall -= 700 * DAY
  await one.tab.browser.advance(20)
  assert.equal(one.tab.sockets.length, 2)
})

test('no CONNACK in 40 s, and it tries again', async () => {
  const one = await started(new Browser())
  one.socket.open()
  await one.tab.browser.advance(39_900)
  assert.equal(state(one).state, 'connecting')
  await one.tab.browser.advance(200)
  assert.equal(state(one).state, 'waiting')
})

test('a PINGREQ after 30 s in which nothing was sent; no answer in 10 s is a lost connection', async () => {
  const one = await connected(new Browser())
  const { browser } = one.tab
  await browser.advance(29_000)
  one.socket.publish('/1/inbox', { from: '2' }, { id: 1, from: '2' })
  await settle()
  assert.equal(one.socket.take('puback').length, 1)
  await browser.advance(29_900)
  assert.equal(one.socket.take('pingreq').length, 0)
  await browser.advance(200)
  assert.equal(one.socket.take('pingreq').length, 1)
  one.socket.pingresp()
  await browser.advance(29_000)
  assert.equal(state(one).state, 'connected')
  await browser.advance(2000)
  assert.equal(one.socket.take('pingreq').length, 1)
  await browser.advance(8800)
  assert.equal(state(one).state, 'connected')
  await browser.advance(200)
  assert.equal(state(one).state, 'waiting')
})

test('the server\'s keep alive goes before its own, and 0 is none', async () => {
  const one = await connected(new Browser(), {}, { keepAlive: 5 })
  await one.tab.browser.advance(5100)
  assert.equal(one.socket.take('pingreq').length, 1)
  const quiet = await connected(new Browser(), {}, { keepAlive: 0 })
  await quiet.tab.browser.advance(DAY / 24)
  assert.equal(quiet.socket.take('pingreq').length, 0)
})

test('a connection that stands is asked whether it does when the page becomes visible', async () => {
  const one = await connected(new Browser())
  one.tab.show(true)
  assert.equal(one.socket.take('pingreq').length, 1)
  one.tab.show(true)
  assert.equal(one.socket.take('pingreq').length, 0)
  await one.tab.browser.advance(10_100)
  assert.equal(state(one).state, 'waiting')
})

test('a refused login with a token that is a text stops', async () => {
  const one = await started(new Browser())
  one.socket.open()
  one.socket.connack({ code: 0x87, reason: '{"type":"error","handler":"authenticate","category":"api_token","message":"wrong api token","messageId":null}' })
  await settle()
  assert.deepEqual(state(one).reason, { handler: 'authenticate', category: 'api_token', message: 'wrong api token', code: 0x87 })
  await staysAway(one, 'refused')
})

test('a refused login asks for a token once more, tries once more, and stops', async () => {
  const asked = []
  const one = await started(new Browser(), { token: async (why) => `token ${asked.push(why)}` })
  one.socket.accept({ code: 0x87 })
  await settle()
  one.socket.open()
  assert.equal(one.socket.take('connect')[0].token, 'token 2')
  one.socket.connack({ code: 0x87 })
  await settle()
  assert.deepEqual(asked, [{ refused: false }, { refused: true }])
  await staysAway(one, 'refused')
  assert.deepEqual(asked.at(-1), { refused: false })
})

test('a token that changes while it is connected is asked for, and the connection comes back', async () => {
  const asked = []
  const one = await connected(new Browser(), { token: async (why) => `token ${asked.push(why)}` })
  await one.tab.browser.advance(31_000)
  one.socket.disconnect(0x87)
  await settle()
  await reconnected(one)
  assert.equal(state(one).state, 'connected')
  assert.deepEqual(asked, [{ refused: false }, { refused: true }])
  await one.tab.browser.advance(10_000)
  one.socket.disconnect(0x87)
  await settle()
  await staysAway(one, 'refused')
})

test('no token for the network: it waits and asks again; none after a refusal: it stops', async () => {
  let broken = true
  const one = await started(new Browser(), { token: async ({ refused }) => { if (broken || refused) throw new Error('offline'); return 'good' } })
  assert.equal(one.tab.sockets.length, 0)
  assert.deepEqual([state(one).state, state(one).reason.category, state(one).reason.message], ['waiting', 'token', 'offline'])
  broken = false
  await one.tab.browser.advance(500)
  one.socket.open()
  one.socket.connack({ code: 0x87 })
  await settle()
  await staysAway(one, 'refused')
})

test('a token that never comes holds it up for 30 s', async () => {
  const one = await started(new Browser(), { token: () => new Promise(() => {}) })
  await one.tab.browser.advance(29_900)
  assert.equal(state(one).state, 'connecting')
  await one.tab.browser.advance(200)
  assert.equal(state(one).state, 'waiting')
})

for (const [how, end] of [['by DISCONNECT 0x8E', (socket) => socket.disconnect(0x8E)], ['without a word', (socket) => socket.drop()]]) {
  test(`after logout, closed ${how}, it stays away until the user wants it back`, async () => {
    const one = await connected(new Browser())
    one.socket.refuse(clientId, { handler: 'authenticate', category: 'logout', message: 'a new device has connected', messageId: null })
    end(one.socket)
    await settle()
    assert.deepEqual(one.heard.logout.map(({ category, message }) => [category, message]), [['logout', 'a new device has connected']])
    assert.deepEqual(one.heard.error, [])
    await staysAway(one, 'logout')
    await reconnected(one)
    one.socket.drop()
    await settle()
    assert.equal(state(one).state, 'waiting', 'the next end is none by logout')
  })
}

test('after 0x8E without logout the newer connection goes on, and this one stays away', async () => {
  const one = await connected(new Browser())
  one.socket.disconnect(0x8E)
  await settle()
  assert.deepEqual(one.heard.logout.map(({ category }) => category), ['takeover'])
  await staysAway(one, 'logout')
})

test('spam: ten minutes, or until the user wants to', async () => {
  const one = await started(new Browser())
  one.socket.accept({ code: 0x9F, reason: '{"type":"error","handler":"preConnect","category":"spam","message":"too many failed auth attempts","messageId":null}' })
  await settle()
  assert.equal(state(one).reason.category, 'spam')
  one.tab.window.dispatchEvent(new Event('online'))
  one.tab.show(true)
  await one.tab.browser.advance(599_000)
  assert.equal(one.tab.sockets.length, 1)
  await one.tab.browser.advance(2000)
  assert.equal(one.tab.sockets.length, 2)
  one.socket.accept({ code: 0x9F })
  await settle()
  await one.jam.start()
  await settle()
  assert.equal(one.tab.sockets.length, 3)
})

for (const [what, code, open] of [['cannot read accounts', 0x88, false], ['has 32 devices', 0x97, false], ['is busy', 0x89, false], ['stops', 0x8B, true], ['is busy', 0x89, true], ['has no room', 0x97, true], ['heard nothing', 0x8D, true]]) {
  test(`the server ${what} (${code.toString(16)}): it comes back, and not at once with all the others`, async () => {
    const one = await started(new Browser())
    one.tab.chance = MOST
    one.socket.accept(open ? {} : { code })
    await settle()
    if (open) {
      await one.tab.browser.advance(31_000)
      one.socket.pingresp()
    }
    const wait = await waitAfter(one, () => { if (open) one.socket.disconnect(code) })
    assert.ok(Math.abs(wait - 8000) <= 1, `${wait}`)
  })
}

for (const [code, open] of [...[0x81, 0x82, 0x84, 0x85, 0x86, 0x8C].map((code) => [code, false]), ...[0x81, 0x82, 0x93, 0x94, 0x95].map((code) => [code, true])]) {
  test(`the same bytes would end the next connection too (${open ? 'DISCONNECT' : 'CONNACK'} ${code.toString(16)}): it stops`, async () => {
    const one = await started(new Browser())
    one.socket.accept(open ? {} : { code })
    await settle()
    if (open) one.socket.disconnect(code)
    await settle()
    await staysAway(one, 'failed')
  })
}

for (const [what, send, code] of [
  ['a packet that is none', (socket) => socket.receive(Uint8Array.of(0xFF, 0)), 0x81],
  ['a packet before the CONNACK', null, null],
  ['a second CONNACK', (socket) => socket.connack(), 0x82],
  ['QoS 2', (socket) => socket.receive(Uint8Array.of(0x34, 7, 0, 2, 47, 97, 0, 1, 0)), 0x82],
  ['a topic alias', (socket) => socket.receive(Uint8Array.of(0x30, 8, 0, 2, 47, 97, 3, 0x23, 0, 1)), 0x94],
  ['a packet of 256 MB', (socket) => socket.receive(Uint8Array.of(0x30, 0xFF, 0xFF, 0xFF, 0x7F)), 0x95],
  ['a text frame', (socket) => socket.onmessage({ data: 'hello' }), 0x81]
]) {
  test(`${what} from the server ends the connection, is told, and it comes back later`, async () => {
    const one = await started(new Browser())
    one.tab.chance = MOST
    one.socket.open()
    if (send) one.socket.connack()
    else one.socket.pingresp()
    await settle()
    send?.(one.socket)
    await settle()
    if (code) assert.equal(one.socket.take('disconnect')[0].code, code)
    assert.deepEqual(one.heard.error.map(({ category }) => category), ['protocol'])
    assert.ok(Math.abs(await waitAfter(one, () => {}) - 8000) <= 1)
  })
}

test('a new WebSocket that throws is a connection that failed', async () => {
  const one = page(new Browser())
  one.tab.WebSocket = class { constructor () { throw new DOMException('insecure', 'SecurityError') } }
  await one.jam.start()
  await settle()
  assert.deepEqual([state(one).state, state(one).reason.category], ['waiting', 'network'])
  assert.equal(one.tab.browser.timers.length, 1)
})

test('stop() says DISCONNECT and leaves no timer; start() may follow', async () => {
  const one = await connected(new Browser())
  await one.jam.stop()
  await settle()
  assert.deepEqual(one.socket.take('disconnect'), [{ type: 'disconnect', code: 0, ends: false }])
  assert.equal(state(one).state, 'stopped')
  assert.deepEqual(one.tab.browser.timers, [])
  one.tab.window.dispatchEvent(new Event('online'))
  await one.tab.browser.advance(DAY)
  assert.equal(one.tab.sockets.length, 1)
  await one.jam.start()
  await settle()
  assert.equal(one.tab.sockets.length, 2)
})

test('stop() while it starts stops it', async () => {
  const one = page(new Browser())
  const starting = one.jam.start()
  await one.jam.stop()
  await starting
  await one.tab.browser.advance(DAY)
  assert.deepEqual([one.tab.sockets.filter(({ readyState }) => readyState !== 3).length, state(one).state], [0, 'stopped'])
})

test('forget() after a logout connects to nothing, and so logs the other device out of nothing', async () => {
  const one = await connected(new Browser())
  await one.jam.send('2', 'secret')
  one.socket.disconnect(0x8E)
  await settle()
  await one.jam.forget()
  await settle()
  assert.equal(one.tab.sockets.length, 1)
  const stopped = page(one.tab.browser)
  await stopped.jam.forget()
  assert.equal(stopped.tab.sockets.length, 0)
  await stopped.jam.start()
  assert.deepEqual(await stopped.jam.history('2'), [])
})

test('forget() ends the session with the server and removes everything of this user, and of no other', async () => {
  const browser = new Browser()
  const other = await connected(browser, { user: '3' })
  await other.jam.send('2', 'stays')
  const one = await connected(browser)
  await one.jam.send('2', 'goes')
  await one.jam.forget()
  assert.deepEqual(one.socket.take('disconnect'), [{ type: 'disconnect', code: 0, ends: true }])
  const again = await connected(browser)
  assert.deepEqual(await again.jam.history('2'), [])
  assert.deepEqual(await again.jam.conversations(), [])
  assert.equal((await other.jam.history('2')).length, 1)
})
