// Several tabs of one user: one connection, and all of them show the same.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Browser, settle } from './browser.mjs'
import { Faults } from './faults.mjs'
import { clientId, connected, message, page, reconnected, started, state } from './page.mjs'

const contents = (messages) => messages.map(({ content }) => content)
const connectedTabs = (...tabs) => tabs.filter(({ jam }) => jam.leader)

/** A tab that follows the one that leads. */
async function following (browser, options) {
  const one = page(browser, options)
  await one.jam.start()
  await browser.advance(1000)
  return one
}

for (const [how, options] of [['Web Locks', {}], ['heartbeats, for want of Web Locks', { locks: false }]]) {
  const lead = async (browser, more) => {
    const one = page(browser, more)
    await one.jam.start()
    await browser.advance(1000)
    one.socket.answersPings = true
    one.socket.accept()
    await settle()
    one.socket.take()
    return one
  }

  test(`${how}: one tab connects, the other shows the same and sends by it`, async () => {
    const browser = new Browser(options)
    const first = await lead(browser)
    first.socket.publish('/1/presence', { type: 'presence', user: '2', online: true })
    first.socket.publish('/1/friends', { friends: [{ user: '2', name: 'ben' }], part: 1, parts: 1 })
    await settle()
    const second = await following(browser)
    assert.deepEqual([first.jam.leader, second.jam.leader, second.tab.sockets.length], [true, false, 0])
    assert.equal(second.jam.state.state, 'connected')
    assert.deepEqual(second.jam.friends.map(({ name, online }) => [name, online]), [['ben', true]])
    first.socket.publish('/1/inbox', message('a', 'hi'), { id: 1, from: '2' })
    await settle()
    assert.deepEqual([contents(first.heard.message), contents(second.heard.message)], [['hi'], ['hi']])
    const { id } = await second.jam.send('2', 'from the second tab')
    await settle()
    const [packet] = first.socket.take('publish')
    assert.equal(packet.payload.id, id)
    first.socket.puback(packet.id)
    await settle()
    for (const { heard, jam } of [first, second]) {
      assert.deepEqual(contents(heard.message), ['hi', 'from the second tab'])
      assert.deepEqual(heard.update.map(({ state }) => state), ['sent'])
      assert.deepEqual(contents(await jam.history('2')), ['hi', 'from the second tab'])
      assert.deepEqual([...jam.unread], [['2', 1]])
    }
    await second.jam.read('2')
    await settle()
    assert.equal(first.jam.unread.size, 0)
    assert.equal(first.tab.document.title, 'Chat')
  })

  test(`${how}: when the leader is killed, the other takes its place within 5 s, and its outbox with it`, async () => {
    const browser = new Browser(options)
    const first = await lead(browser)
    first.socket.publish('/1/friends', { friends: [{ user: '2' }], part: 1, parts: 1 })
    first.socket.publish('/1/presence', { type: 'presence', user: '2', online: true })
    await settle()
    const second = await following(browser)
    assert.deepEqual(second.jam.friends.map(({ online }) => online), [true])
    await first.jam.send('2', 'on its way')
    await settle()
    assert.equal(first.socket.take('publish').length, 1)
    first.tab.kill()
    await second.jam.send('2', 'after it')
    await browser.advance(5000)
    assert.equal(second.jam.leader, true)
    second.socket.accept({ present: true })
    await settle()
    const seen = []
    for (let packets = second.socket.take('publish'); packets.length; packets = second.socket.take('publish')) {
      seen.push(packets[0].payload.content)
      second.socket.puback(packets[0].id)
      await settle()
    }
    assert.deepEqual(seen, ['on its way', 'after it'])
    assert.deepEqual(second.jam.friends.map(({ online }) => online), [false], 'what the old leader knew is not known any more')
  })

  test(`${how}: when the leader leaves, another one follows at once`, async () => {
    const browser = new Browser(options)
    const first = await lead(browser)
    const second = await following(browser)
    const third = await following(browser)
    await first.jam.stop()
    await browser.advance(600)
    assert.equal(connectedTabs(second, third).length, 1)
    assert.deepEqual(connectedTabs(second, third)[0].heard.leader.at(-1), { leader: true })
  })

  test(`${how}: two users in two tabs are two connections`, async () => {
    const browser = new Browser(options)
    const one = await lead(browser)
    const other = await lead(browser, { user: '2' })
    assert.deepEqual([one.jam.leader, other.jam.leader], [true, true])
    one.socket.publish('/1/inbox', message('a', 'hi'), { id: 1, from: '2' })
    await settle()
    assert.deepEqual(other.heard.message, [])
  })

  test(`${how}: logout is told in all tabs, and any of them takes it back`, async () => {
    const browser = new Browser(options)
    const first = await lead(browser)
    const second = await following(browser)
    first.socket.refuse(clientId, { handler: 'authenticate', category: 'logout', message: 'a new device has connected', messageId: null })
    first.socket.disconnect(0x8E)
    await browser.advance(60_000)
    for (const { heard, jam } of [first, second]) assert.deepEqual([heard.logout.length, jam.state.state], [1, 'logout'])
    assert.equal(first.tab.sockets.length, 1)
    await second.jam.start()
    await settle()
    assert.equal(first.tab.sockets.length, 2)
  })

  test(`${how}: what the leader had stored when it died, and not told, the next one tells, once, in all tabs`, async () => {
    const faults = new Faults()
    const browser = new Browser({ ...options, indexedDB: faults.factory() })
    const first = await lead(browser)
    first.socket.publish('/1/inbox', message('a', 'told'), { id: 1, from: '2' })
    await settle()
    const [second, third] = [await following(browser), await following(browser)]
    first.socket.publish('/1/inbox', message('b', 'told to both'), { id: 2, from: '2' })
    await settle()
    faults.held = true
    first.socket.publish('/1/inbox', message('c', 'not told'), { id: 3, from: '2' })
    first.socket.publish('/1/inbox', message('d', 'not told, of three', '3'), { id: 4, from: '3' })
    await settle()
    first.tab.kill()
    faults.release()
    await browser.advance(6000)
    const [leader] = connectedTabs(second, third)
    leader.socket.answersPings = true
    await reconnected(leader)
    for (const [id, name, from] of [[5, 'c', '2'], [6, 'd', '3']]) leader.socket.publish('/1/inbox', message(name, 'again', from), { id, from, dup: true })
    await browser.advance(40_000)
    for (const { heard, jam } of [second, third]) {
      assert.deepEqual(contents(heard.message), ['told to both', 'not told', 'not told, of three'])
      assert.deepEqual([...jam.unread], [['2', 3], ['3', 1]])
    }
  })

  test(`${how}: a message that a follower stored and died over is told by the leader, once`, async () => {
    const browser = new Browser(options)
    const first = await lead(browser)
    const [second, third] = [await following(browser), await following(browser)]
    for (const channel of browser.channels) if (channel.tab === second.tab) channel.postMessage = () => {}
    await second.jam.send('2', 'last words')
    second.tab.kill()
    await browser.advance(31_000)
    first.socket.puback(first.socket.take('publish')[0].id)
    await browser.advance(31_000)
    for (const { heard } of [first, third]) {
      assert.deepEqual(contents(heard.message), ['last words'])
      assert.deepEqual(heard.update.map(({ state }) => state), ['sent'])
    }
  })

  test(`${how}: a follower takes no verdict on another token for one on its own`, async () => {
    const browser = new Browser(options)
    const first = await lead(browser, { token: 'right' })
    const [same, wrong] = [await following(browser, { token: 'right' }), await following(browser, { token: 'wrong' })]
    assert.deepEqual([first, same, wrong].map(({ jam: { state: { state, own } } }) => [state, own]), [['connected', true], ['connected', true], ['connected', false]])
    assert.ok(!JSON.stringify(wrong.heard.state).includes('right'))
  })

  test(`${how}: a leader whose token is refused lets a tab with another one try`, async () => {
    const browser = new Browser(options)
    const wrong = page(browser, { token: 'wrong' })
    await wrong.jam.start()
    await browser.advance(1000)
    const [same, right] = [await following(browser, { token: 'wrong' }), await following(browser, { token: 'right' })]
    wrong.socket.accept({ code: 0x87 })
    const pending = () => [wrong, same, right].map(({ socket }) => socket).find((socket) => socket?.readyState === 0)
    for (let round = 0; round < 3; round++) {
      await browser.advance(5000)
      const socket = pending()
      if (!socket) break
      socket.open()
      const [{ token }] = socket.take('connect')
      socket.connack({ code: token === 'right' ? 0 : 0x87 })
      socket.answersPings = true
    }
    await settle()
    assert.deepEqual([right.jam.leader, state(right).state, state(right).own], [true, 'connected', true])
    assert.ok(!right.heard.state.some(({ state }) => state === 'refused'), 'it was never told that its own is wrong')
    await browser.advance(60_000)
    assert.equal(wrong.tab.sockets.length, 1, 'what was refused is not tried again')
    await wrong.jam.start()
    await browser.advance(5000)
    assert.deepEqual([state(wrong).state, state(wrong).own], ['connected', false])
    right.tab.kill()
    await browser.advance(10_000)
    assert.equal(connectedTabs(wrong, same).length, 1, 'a tab that has joined again leads in its turn')
  })

  test(`${how}: a page that the browser puts aside does not lead, and hears what it has missed`, async () => {
    const browser = new Browser(options)
    const first = await lead(browser)
    const second = await following(browser)
    const transition = (one, type, persisted) => one.tab.window.dispatchEvent(Object.assign(new Event(type), { persisted }))
    transition(first, 'pagehide', true)
    first.tab.alive = false // hears nothing
    await browser.advance(6000)
    assert.deepEqual([first.jam.leader, second.jam.leader], [false, true])
    assert.equal(first.socket.readyState, 3)
    second.socket.answersPings = true
    await reconnected(second)
    second.socket.publish('/1/inbox', message('a', 'meanwhile'), { id: 1, from: '2' })
    await settle()
    first.tab.alive = true
    transition(first, 'pageshow', true)
    await browser.advance(20_000)
    assert.deepEqual([first.jam.leader, second.jam.leader, first.jam.state.state], [false, true, 'connected'])
    assert.deepEqual([contents(first.heard.message), contents(second.heard.message)], [['meanwhile'], ['meanwhile']])
    assert.deepEqual([...first.jam.unread], [['2', 1]])
    second.tab.kill()
    await browser.advance(6000)
    assert.equal(first.jam.leader, true)
  })

  test(`${how}: forget() in one tab ends all`, async () => {
    const browser = new Browser(options)
    const first = await lead(browser)
    const second = await following(browser)
    await first.jam.send('2', 'secret')
    await second.jam.forget()
    await browser.advance(5000)
    assert.equal(first.socket.take('disconnect')[0].ends, true)
    assert.deepEqual([state(first).state, state(second).state], ['stopped', 'stopped'])
    const again = await started(browser)
    assert.deepEqual(await again.jam.history('2'), [])
  })
}

test('heartbeats: tabs that start together agree on one', async () => {
  const browser = new Browser({ locks: false })
  const tabs = [page(browser), page(browser), page(browser)]
  for (const [at, { tab }] of tabs.entries()) {
    let asked = 0
    tab.chance = () => asked++ ? 0.5 : [0.7, 0.2, 0.9][at]
  }
  await Promise.all(tabs.map(({ jam }) => jam.start()))
  await browser.advance(10_000)
  assert.equal(connectedTabs(...tabs).length, 1)
})

test('heartbeats: of two that lead, because one could not hear the other, one steps back when they do', async () => {
  const browser = new Browser({ locks: false })
  const first = page(browser)
  first.tab.chance = 0.7
  await first.jam.start()
  await browser.advance(1000)
  first.socket.accept()
  const second = await following(browser)
  first.tab.alive = false // deaf, as a tab that the browser has frozen
  await browser.advance(5000)
  first.tab.alive = true
  second.socket.accept()
  await settle()
  assert.deepEqual([first.jam.leader, second.jam.leader], [true, true])
  await following(browser)
  assert.equal(connectedTabs(first, second).length, 1)
  const [out] = [first, second].filter(({ jam }) => !jam.leader)
  assert.equal(out.socket.readyState, 3)
})

test('heartbeats: a connection that another tab has taken comes back when this one leads after all', async () => {
  const browser = new Browser({ locks: false })
  const one = page(browser)
  await one.jam.start()
  await browser.advance(1000)
  one.socket.accept()
  await settle()
  one.socket.disconnect(0x8E)
  await settle()
  assert.equal(state(one).state, 'waiting')
  assert.deepEqual(one.heard.logout, [])
})

test('without BroadcastChannel a tab is for itself', async () => {
  const one = await connected(new Browser({ locks: false, channel: false }))
  assert.equal(one.jam.leader, true)
})

test('Web Locks that are denied are none', async () => {
  const browser = new Browser()
  const one = page(browser)
  one.tab.locks = { request: async () => { throw new DOMException('denied', 'SecurityError') } }
  await one.jam.start()
  await browser.advance(1000)
  assert.equal(one.jam.leader, true)
})

test('IndexedDB denied, and two tabs: both show the same, and both can write', async () => {
  const browser = new Browser({ indexedDB: null })
  const first = await connected(browser)
  const second = await following(browser)
  first.socket.publish('/1/inbox', message('a', 'hi'), { id: 1, from: '2' })
  await settle()
  await second.jam.send('2', 'from the second')
  await settle()
  const [packet] = first.socket.take('publish')
  assert.equal(packet.payload.content, 'from the second')
  first.socket.puback(packet.id)
  await settle()
  for (const { jam } of [first, second]) {
    const all = await jam.history('2')
    assert.deepEqual(all.map(({ content, state }) => [content, state]), [['hi', 'received'], ['from the second', 'sent']])
  }
  await second.jam.send('2', 'not yet sent')
  await settle()
  first.tab.kill()
  await settle()
  assert.equal(second.jam.leader, true)
  await reconnected(second)
  assert.deepEqual(second.socket.take('publish').map(({ payload: { content } }) => content), ['not yet sent'])
  second.socket.publish('/1/inbox', message('a', 'hi'), { id: 1, from: '2', dup: true })
  await settle()
  assert.deepEqual(contents(await second.jam.history('2')), ['hi', 'from the second', 'not yet sent'])
})
