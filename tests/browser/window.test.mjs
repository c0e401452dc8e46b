// The part of a conversation that is drawn, against a model: whatever comes, goes and is scrolled to, it is whole and bounded.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Window } from '../../crates/server/web/chat/window.js'

const friend = '2'
const most = 2000
const mostBytes = 32 * 1024 * 1024

/** What jam.js keeps. `history` answers later, as IndexedDB does; meanwhile anything may happen. */
class Kept {
  messages = []
  #order = 0

  write (content = 'x', own = false) {
    const message = { order: ++this.#order, friend, own, state: own ? 'queued' : 'received', content }
    this.messages.push(message)
    return message
  }

  async history (_, { before = Infinity, limit }) {
    if (this.failure) throw this.failure
    const page = this.messages.filter(({ order }) => order < before).slice(-limit)
    await new Promise(setImmediate)
    return page
  }
}

const holding = (count, content) => {
  const kept = new Kept()
  for (let index = 0; index < count; index++) kept.write(content)
  return [kept, new Window(kept, friend, () => {})]
}

/** What is drawn is a run of what is kept, within the bounds. */
function check (kept, window, why) {
  const orders = window.messages.map(({ order }) => order)
  const all = kept.messages.map(({ order }) => order)
  const at = all.indexOf(orders[0])
  assert.deepEqual(orders, orders.length === 0 ? [] : all.slice(at, at + orders.length), why)
  assert.ok(orders.length <= most, why)
  const bytes = window.messages.reduce((sum, { content }) => sum + 2 * content.length, 0)
  assert.ok(bytes <= mostBytes || orders.length === 1, `${why}: ${bytes} bytes`)
}

test('a hundred thousand messages come to who is at the end: the newest are drawn, and no more than may be', async () => {
  const [kept, window] = holding(0)
  await window.open()
  for (let count = 0; count < 100_000; count++) window.arrives(kept.write())
  check(kept, window, 'at the end')
  assert.equal(window.messages.length, most)
  assert.equal(window.messages.at(-1).order, 100_000)
  assert.deepEqual([window.hasEarlier, window.hasLater], [true, false])
})

test('a hundred thousand messages come to who reads above: what is read stays, and what comes is reached by going on', async () => {
  const [kept, window] = holding(300)
  await window.open()
  window.isAbove = true
  for (let count = 0; count < 5000; count++) window.arrives(kept.write())
  check(kept, window, 'above')
  assert.equal(window.messages[0].order, 101)
  assert.equal(window.hasLater, true)
  for (let count = 0; count < 100 && window.hasLater; count++) {
    await window.later()
    check(kept, window, 'going on')
  }
  assert.deepEqual([window.messages.at(-1).order, window.hasLater], [5300, false])
  for (let count = 5000; count < 100_000; count++) window.arrives(kept.write())
  await window.open()
  check(kept, window, 'after a jump')
  assert.equal(window.messages.at(-1).order, kept.messages.at(-1).order)
})

test('what nobody looks at any more loads nothing more', async () => {
  const [kept, window] = holding(2000)
  let asked = 0
  const history = kept.history.bind(kept)
  kept.history = (...page) => { asked++; return history(...page) }
  await window.open()
  const easing = window.ease()
  window.close()
  await easing
  await window.ease()
  assert.deepEqual([asked, window.messages.length], [1, 200])
})

test('large messages are bounded by their size', async () => {
  const [kept, window] = holding(300, 'x'.repeat(300_000))
  await window.open()
  check(kept, window, 'at first')
  await window.ease()
  check(kept, window, 'at ease')
  window.isAbove = true
  for (let count = 0; count < 5; count++) {
    await window.earlier()
    check(kept, window, 'earlier')
  }
  assert.equal(window.messages[0].order, 1)
  window.arrives(kept.write('x'.repeat(20_000_000)))
  check(kept, window, 'one that is larger than all')
  await window.open()
  check(kept, window, 'only that one')
  assert.equal(window.messages.at(-1).content.length, 20_000_000)
})

test('what is stored and not told of is caught up with, at the end and above', async () => {
  for (const isAbove of [false, true]) {
    const [kept, window] = holding(3000)
    await window.open()
    window.isAbove = isAbove
    while (isAbove && window.messages.length < most) await window.earlier()
    if (isAbove) await window.earlier()
    const own = kept.messages.at(-1)
    kept.messages[kept.messages.length - 1] = { ...own, state: 'delivered' }
    for (let count = 0; count < 700; count++) kept.write()
    await window.catchUp()
    check(kept, window, `above: ${isAbove}`)
    while (window.hasLater) await window.later()
    check(kept, window, `then ${isAbove}`)
    assert.equal(window.messages.at(-1).order, 3700)
    assert.equal(window.messages.find(({ order }) => order === 3000).state, 'delivered')
  }
})

test('a failure is told to who asked, changes nothing, and is over when it is over', async () => {
  const [kept, window] = holding(500)
  kept.failure = new Error('the disk is gone')
  await assert.rejects(window.open(), /the disk is gone/)
  assert.equal(window.failure, kept.failure)
  kept.failure = undefined
  await window.open()
  assert.deepEqual([window.failure, window.messages.length], [null, 200])
  kept.failure = new Error('again')
  await assert.rejects(window.earlier(), /again/)
  check(kept, window, 'after a failure')
  kept.failure = undefined
  await window.earlier()
  assert.equal(window.messages.length, 400)
})

/** The same numbers for the same seed. */
function numbers (seed) {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor(state / 2 ** 32 * below)
  }
}

async function happens (seed) {
  const any = numbers(seed)
  const [kept, window] = holding(any(4000))
  const running = []
  const told = []
  const tell = () => { while (told.length) window.arrives(told.shift()) }
  const steps = [
    () => { for (let count = any(300); count > 0; count--) told.push(kept.write('x', any(2) === 0)) },
    () => tell(),
    () => running.push(window.earlier()),
    () => running.push(window.later()),
    () => running.push(window.open(any(2000))),
    () => running.push(window.ease()),
    () => running.push(window.catchUp()),
    () => { window.isAbove = window.hasLater || any(2) === 0 },
    async () => { await Promise.all(running.splice(0)) },
    async () => { await new Promise(setImmediate) },
    () => {
      tell()
      const own = kept.messages.findLast((message) => message.own)
      if (!own || any(4)) return
      kept.messages = kept.messages.filter((message) => message !== own)
      window.updates({ ...own, state: 'cancelled' })
      assert.equal(window.arrives(own), false, 'told of too late')
    }
  ]
  running.push(window.open())
  for (let step = 0; step < 150; step++) {
    const chosen = any(steps.length)
    await steps[chosen]()
    const orders = window.messages.map(({ order }) => order)
    assert.ok(orders.length <= most && orders.every((order, index) => index === 0 || order > orders[index - 1]), `seed ${seed}, step ${step}`)
  }
  await Promise.all(running)
  tell()
  check(kept, window, `seed ${seed}`)
  for (let count = 0; count < 100 && window.hasLater; count++) await window.later()
  check(kept, window, `seed ${seed}, at the end`)
  assert.equal(window.messages.at(-1)?.order, kept.messages.at(-1)?.order, `seed ${seed}`)
  window.isAbove = true
  for (let count = 0; count < 200 && window.hasEarlier; count++) await window.earlier()
  assert.equal(window.messages[0]?.order, kept.messages[0]?.order, `seed ${seed}`)
  check(kept, window, `seed ${seed}, at the beginning`)
}

test('whatever happens, in whatever order, the window is whole and bounded, and the end can be reached', async () => {
  const seeds = [...Array(31).keys(), 197] // the last finds what the first do not
  await Promise.all(seeds.map(happens)) // together: most of it is waiting
})
