// For the picture of the console's overview: people who come, write to each other and go, for a quarter of an hour by the page's clock.

import { once } from 'node:events'
import { createServer } from 'node:http'
import { contextOf, logIn, watchedIn } from './browser.mjs'
import { Server, token } from './server.mjs'

const first = 101
const people = 60
const seconds = 15 * 60 + 20
const realMs = 40_000 // what all of it takes, about

export class Town {
  /** @type {Map<string, import('mqtt').MqttClient>} */ #here = new Map()
  #ids = Array.from({ length: people }, (_, at) => `${first + at}`)

  async open () {
    this.service = createServer((request, response) => { request.resume(); response.writeHead(204).end() }).listen(0, '127.0.0.1')
    await once(this.service, 'listening')
    this.server = await new Server({
      JAM_MQTT_PUSH__WEBHOOK_URL: `http://127.0.0.1:${this.service.address().port}/`,
      JAM_MQTT_PUSH__WEBHOOK_SECRET: 'of-the-webhook'
    }).start()
    for (const id of this.#ids) await this.server.user(id, `user${id}`)
    for (const id of this.#ids) await this.server.api('PUT', `users/${id}/friends/${this.#next(id)}`)
    return this
  }

  async close () {
    for (const client of this.#here.values()) client.end(true)
    await this.server.stop()
    this.service.close()
  }

  #next (id) { return `${first + (Number(id) - first + 1) % people}` }

  /** The overview at the end of it. With each look at the numbers a second passes for the page, and what happens in a second here. */
  async evening (browser) {
    const context = await contextOf(browser)
    await context.clock.install({ time: Date.now() - seconds * 1000 + realMs })
    const page = await watchedIn(context, this.server.console)
    await logIn(page, token)
    await page.locator('.charts').waitFor()
    for (let second = 0; second < seconds; second++) {
      await this.#live(second)
      const looked = page.waitForResponse('**/metrics')
      await page.clock.runFor(1000)
      await looked
    }
    return page
  }

  async #live (second) {
    const hour = 2 * Math.PI * second / seconds
    const wanted = Math.round(30 + 14 * Math.sin(1.5 * hour) + 4 * Math.sin(9 * hour))
    const away = this.#ids.filter((id) => !this.#here.has(id))
    const any = (all) => all[Math.floor(Math.random() * all.length)]
    if (this.#here.size < wanted) {
      const id = any(away)
      this.#here.set(id, await this.server.client(id))
    } else if (this.#here.size > wanted || second % 20 === 0) {
      const id = any([...this.#here.keys()])
      await this.#here.get(id).endAsync()
      this.#here.delete(id)
    }
    const written = Math.round(9 + 6 * Math.sin(2 * hour) + 2 * Math.random())
    for (let count = 0; count < written; count++) {
      const from = any([...this.#here.keys()])
      // Most write to who is there.
      const to = this.#here.has(this.#next(from)) || Math.random() < 0.1 ? this.#next(from) : null
      if (to) await this.server.write(this.#here.get(from), from, to, 'x')
    }
    const isBurst = second % 400 > 250 && second % 400 < 330
    if (Math.random() < (isBurst ? 0.6 : 0.03)) {
      const [from, client] = this.#here.entries().next().value
      await this.server.write(client, from, '1', 'x').catch(() => {}) // they are no friends
    }
  }
}
