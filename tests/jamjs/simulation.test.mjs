// Anything at any time: two tabs that write, close, are killed and come back, a store that breaks, a connection that does, and a server
// that repeats, refuses and forgets to answer. Each seed is a story; at its end everything heals, and nothing may be missing or be there twice.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Browser, settle } from './browser.mjs'
import { Faults } from './faults.mjs'
import { clientId, message, page } from './page.mjs'

const SEEDS = Number(process.env.JAM_SEEDS ?? 12)
const FIRST = Number(process.env.JAM_FIRST_SEED ?? 1)
const STEPS = 120
const FRIENDS = ['2', '3']
const PASSING = [['quota', 'full', 0x97], ['mailbox', 'disk', 0x83], ['rate', 'fast', 0x97]]

/** A server of which the test knows what it has taken and what was acknowledged to it. */
class ModelServer {
  constructor (random) {
    this.random = random
    this.written = 0
    this.mailbox = [] // what waits, oldest first: { number, from, id, sent, packetId }
    this.acknowledged = []
    this.taken = new Map(FRIENDS.map((friend) => [friend, []])) // ids in the order in which they were accepted
    this.refused = new Set()
    this.receipts = []
    this.healed = false
    this.lastId = 0
  }

  write () {
    const from = FRIENDS[this.random(2)]
    const number = this.written++
    this.mailbox.push({ number, from, packetId: 0, sent: false })
  }

  /** Looks at every socket that is alive: accepts, answers, delivers. */
  serve (tabs) {
    for (const tab of tabs) {
      const { socket } = tab
      if (!tab.alive || !socket || socket.readyState === 3) continue
      if (socket.readyState === 0) {
        if (!this.healed && this.random(4) === 0) { socket.drop(); continue }
        this.socket = socket
        for (const waiting of this.mailbox) waiting.packetId = 0
        for (const receipt of this.receipts) receipt.packetId = 0
        socket.accept({ present: true, receiveMaximum: 1 + this.random(20) })
      }
      for (const packet of socket.take()) this.#handle(socket, packet)
      this.#deliver(socket)
    }
  }

  #handle (socket, packet) {
    if (packet.type === 'pingreq') socket.pingresp()
    if (packet.type === 'publish') this.#take(socket, packet)
    if (packet.type === 'puback') {
      for (const waiting of this.mailbox.filter(({ packetId }) => packetId === packet.id)) this.acknowledged.push(waiting)
      this.mailbox = this.mailbox.filter(({ packetId }) => packetId !== packet.id)
      this.receipts = this.receipts.filter(({ packetId }) => packetId !== packet.id)
    }
  }

  #take (socket, { id, topic, payload }) {
    const friend = topic.split('/')[1]
    const chance = this.healed ? 9 : this.random(10)
    if (chance === 0) return socket.drop() // it has never arrived
    if (chance === 1 || this.refused.has(payload.id)) {
      this.refused.add(payload.id)
      socket.refuse(clientId, { category: 'friends', message: 'no', messageId: id })
      return socket.puback(id, 0x87)
    }
    if (chance === 2) {
      const [category, text, code] = PASSING[this.random(3)]
      socket.refuse(clientId, { category, message: text, messageId: id })
      return socket.puback(id, code)
    }
    const taken = this.taken.get(friend)
    if (!taken.includes(payload.id)) taken.push(payload.id)
    this.receipts.push({ to: friend, id: payload.id, packetId: 0 })
    if (chance === 3) return socket.drop() // its PUBACK is lost
    socket.puback(id)
  }

  #deliver (socket) {
    let open = [...this.mailbox, ...this.receipts].filter(({ packetId }) => packetId).length
    for (const waiting of this.mailbox) {
      if (open >= 16 || socket.readyState !== 1) return
      if (waiting.packetId) continue
      open++
      const dup = waiting.sent
      Object.assign(waiting, { packetId: ++this.lastId, sent: true })
      socket.publish('/1/inbox', message(`m${waiting.number}`, `${waiting.number}`, waiting.from), { id: waiting.packetId, dup, from: waiting.from }, 1 + this.random(100))
    }
    for (const receipt of this.receipts) {
      if (open++ >= 16 || socket.readyState !== 1) return
      if (receipt.packetId) continue
      receipt.packetId = ++this.lastId
      socket.publish('/1/receipts', { type: 'receipt', status: 'delivered', to: receipt.to, id: receipt.id }, { id: receipt.packetId })
    }
  }
}

function randomOf (seed) {
  let state = seed * 2654435761 | 0
  return (below) => {
    state = Math.imul(state ^ state >>> 15, 0x2C1B3C6D) + 0x9E3779B9 | 0
    return ((state ^ state >>> 13) >>> 0) % below
  }
}

async function tell (seed, locks) {
  const random = randomOf(seed)
  const faults = new Faults()
  const browser = new Browser({ indexedDB: faults.factory(), locks })
  const server = new ModelServer(random)
  const sent = [] // what send() has promised to keep
  const pages = []
  const open = async () => {
    const one = page(browser)
    one.tab.chance = () => random(1000) / 1000
    pages.push(one)
    await one.jam.start().catch(() => {})
  }
  await open()
  await open()
  const living = () => pages.filter(({ tab }) => tab.alive)
  const serve = async () => {
    server.serve(browser.tabs)
    await settle()
  }
  let written = 0
  const steps = [
    () => server.write(),
    () => server.write(),
    async () => {
      const one = living()[random(living().length)]
      const friend = FRIENDS[random(2)]
      await one.jam.send(friend, `own ${written++}`).then(({ id, order }) => sent.push({ id, order, friend }), () => {})
    },
    async () => {
      const one = living()[random(living().length)]
      await one.jam.send('2', `own ${written++}`).then(({ id, order }) => sent.push({ id, order, friend: '2' }), () => {})
    },
    () => browser.advance(random(3000)),
    () => browser.advance(random(20_000)),
    () => { if (random(3) === 0) for (const { socket } of browser.tabs) if (socket?.readyState === 1) socket.drop() },
    async () => {
      if (random(3)) return
      living()[random(living().length)].tab.kill()
      await open()
    },
    async () => {
      if (random(4)) return
      const one = living()[random(living().length)]
      await one.jam.stop()
      one.tab.kill()
      await open()
    },
    () => { faults.full = random(2) ? () => random(3) === 0 : () => false },
    () => { if (random(4) === 0) faults.closeAll() },
    () => { faults.broken = random(5) === 0 }
  ]
  for (let step = 0; step < STEPS; step++) {
    await steps[random(steps.length)]()
    await serve()
  }
  Object.assign(faults, { full: () => false, broken: false })
  server.healed = true
  for (const { jam } of living()) await jam.start() // again, if the store was broken when it began
  const waits = () => server.mailbox.length || server.receipts.length || sent.some(({ id, friend }) => !server.taken.get(friend).includes(id) && !server.refused.has(id))
  for (let round = 0; round < 400 && (waits() || round < 30); round++) {
    await browser.advance(random(5000))
    for (let turn = 0; turn < 3; turn++) await serve()
  }

  const [one] = living()
  assert.deepEqual(server.mailbox, [], 'everything is acknowledged in the end')
  assert.equal(server.acknowledged.length, server.written)
  for (const friend of FRIENDS) {
    const all = await one.jam.history(friend, { limit: 10_000 })
    const received = all.filter(({ own }) => !own).map(({ content }) => Number(content))
    const expected = server.acknowledged.filter(({ from }) => from === friend).map(({ number }) => number).sort((a, b) => a - b)
    assert.deepEqual(received, expected, 'what was acknowledged is here, once, in its order')
    const taken = server.taken.get(friend)
    const orders = taken.map((id) => all.find((own) => own.id === id).order)
    assert.deepEqual(orders, [...orders].sort((a, b) => a - b), 'the friend gets them in the order in which they were written')
    for (const { id } of sent.filter((message) => message.friend === friend)) {
      const own = all.filter((message) => message.id === id)
      assert.equal(own.length, 1)
      const [{ state }] = own
      if (taken.includes(id)) assert.ok(['sent', 'delivered'].includes(state), `taken, and ${state}`)
      else assert.ok(state === 'failed' && server.refused.has(id), `not taken, and ${state}`)
    }
  }
  for (const { heard } of pages) {
    const orders = heard.message.map(({ order }) => order)
    assert.equal(new Set(orders).size, orders.length, 'a tab shows a message once')
  }
  for (const { jam } of living()) await jam.stop()
  return server.written + sent.length
}

for (const [how, locks] of [['Web Locks', true], ['heartbeats', false]]) {
  test(`${SEEDS} stories with ${how}`, async () => {
    let told = 0
    for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
      try {
        told += await tell(seed, locks)
      } catch (error) {
        error.message = `seed ${seed}: ${error.message}`
        throw error
      }
    }
    assert.ok(told > SEEDS * 20, `only ${told} messages`)
  })
}
