// What a test of the chat page does as a person would: finds things by their roles and names.

import assert from 'node:assert/strict'
import { contextOf, isWider, versions, violations, watched, watchedIn } from './browser.mjs'

/** What Chromium writes down itself when the network is gone, or a server is. */
const OF_THE_NETWORK = /WebSocket connection to .* failed|ERR_(CONNECTION_(REFUSED|RESET|CLOSED)|EMPTY_RESPONSE|INTERNET_DISCONNECTED|ADDRESS_UNREACHABLE)/

export class Person {
  constructor (page) {
    this.page = page
  }

  /** In a browser of their own. */
  static async enters (browser, address, options) { return new Person(await watched(browser, address, options)) }

  /** In another tab of a browser. */
  static async entersIn (context, address) { return new Person(await watchedIn(context, address)) }

  get versions () { return versions(this.page.context().browser()) }
  get friends () { return this.page.getByRole('list', { name: 'Friends' }).getByRole('button') }
  friend (name) { return this.page.getByRole('list', { name: 'Friends' }).getByRole('button', { name }) }
  get field () { return this.page.getByRole('textbox', { name: /^Message to/ }) }
  get messages () { return this.page.getByRole('list', { name: /^Messages with/ }).getByRole('listitem') }
  message (text) { return this.messages.filter({ hasText: text }) }
  get alert () { return this.page.getByRole('alert') }
  get heard () { return this.page.getByRole('log').locator('p') }

  async opens (name) {
    await this.friend(name).click()
    await this.page.getByRole('heading', { level: 2, name }).waitFor()
  }

  async writes (...texts) {
    for (const text of texts) {
      await this.field.fill(text)
      await this.field.press('Enter')
    }
  }

  async sees (text, status) {
    const message = this.message(text)
    await (status ? message.filter({ hasText: status }) : message).waitFor()
    assert.equal(await message.count(), 1, text)
  }

  /** The texts of all messages, in their order. */
  texts () { return this.messages.locator('.text').allTextContents() }

  async isAccessible () {
    assert.deepEqual(await violations(this.page), [], this.versions)
    assert.equal(await isWider(this.page), false, `it has to be scrolled sideways, ${this.versions}`)
  }

  /** `cuts`: the network was cut, which Chromium writes down by itself. */
  isClean ({ cuts = false } = {}) {
    if (cuts) this.page.faults = this.page.faults.filter((fault) => !OF_THE_NETWORK.test(fault))
    assert.deepEqual(this.page.faults, [], this.versions)
  }

  leaves () { return this.page.context().close() }
}

export { contextOf }
