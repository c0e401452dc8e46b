// A page that uses jam.js: what it hears, in order.

import { Jam } from '../../crates/server/web/jam/jam.js'
import { settle } from './browser.mjs'

const types = ['state', 'friends', 'message', 'update', 'presence', 'unread', 'error', 'logout', 'leader']

export const clientId = '1:phone'

/** A page in a new tab, not started. `Class`: the Jam of another file. */
export function page (browser, { Class = Jam, ...options } = {}) {
  const tab = browser.tab()
  const jam = new Class({ url: 'ws://host/mqtt', user: '1', token: 'secret', device: 'phone', ...options }, tab)
  const heard = Object.fromEntries(types.map((type) => [type, []]))
  for (const type of types) jam.on(type, ({ detail }) => heard[type].push(detail))
  return { tab, jam, heard, get socket () { return tab.socket } }
}

/** Started, its CONNECT on its way. */
export async function started (browser, options) {
  const one = page(browser, options)
  await one.jam.start()
  await settle()
  return one
}

export async function connected (browser, options, connack) {
  const one = await started(browser, options)
  one.socket.accept(connack)
  await settle()
  one.socket.take('connect')
  one.socket.take('subscribe')
  return one
}

/** The next connection, which a page has opened since. */
export async function reconnected (one, connack) {
  one.socket.accept(connack)
  await settle()
  one.socket.take('connect')
  one.socket.take('subscribe')
}

export const message = (id, content = `content of ${id}`, from = '2') => ({ from, id, timestamp: '2026-01-31T11:59:00.000Z', content, type: 0 })

export const state = ({ heard }) => heard.state.at(-1)
