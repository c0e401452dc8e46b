// With UPDATE_DOCS: the pictures of the chat page in docs/chat, of the demo's two friends.

import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { launch } from './browser.mjs'
import { painted } from './painting.mjs'
import { Person } from './people.mjs'
import { Server, sleep } from './server.mjs'

const pictures = join(dirname(fileURLToPath(import.meta.url)), '../../docs/chat')
const hour = 3_600_000

if (process.env.UPDATE_DOCS) test('pictures for the documentation', async () => {
  mkdirSync(pictures, { recursive: true })
  const server = await new Server().start()
  const browser = await launch()
  for (const [id, name] of [['1', 'Ann'], ['2', 'Ben'], ['3', 'Carla Jung'], ['4', 'Dora'], ['5', 'ليلى'], ['6', 'Emil']]) await server.user(id, name)
  for (const other of ['2', '3', '4', '5', '6']) await server.api('PUT', `users/1/friends/${other}`)
  await server.api('PUT', 'users/2/friends/3')
  const said = async (from, to, ago, ...texts) => {
    const client = await server.client(from, { device: 'app', listens: false })
    for (const text of texts) await server.write(client, from, to, text, { timestamp: new Date(Date.now() - ago).toISOString() })
    client.end(true)
  }
  await said('6', '1', 75 * hour, 'Thank you for the book!')
  await said('5', '1', 49 * hour, 'أراك يوم الجمعة')
  await said('3', '1', 26 * hour, 'Did you find your keys?')
  await said('2', '1', 23 * hour, 'Are we still on for the lake on Saturday?', 'I can bring the tent')
  const ann = await Person.enters(browser, server.link('1'))
  await ann.opens('Carla Jung')
  await ann.opens('Ben')
  await ann.message('tent').waitFor()
  const ben = await Person.enters(browser, server.link('2'))
  await ben.opens('Ann')
  await ann.writes('Yes! Do you remember the way? https://www.openstreetmap.org/#map=13/47.59/12.99')
  await ben.writes('I do. What was it like last year?')
  await ann.message('last year?').waitFor()
  await ann.page.locator('input[type=file]').setInputFiles({ name: 'lake.jpg', mimeType: 'image/jpeg', buffer: await painted(ann.page) })
  await ann.page.getByRole('img', { name: 'about to send' }).waitFor()
  await ann.writes('Like this')
  await ann.sees('Like this', 'delivered')
  await ben.writes('Oh my. Tent it is')
  await ann.message('Tent it is').waitFor()
  await said('4', '1', 0, 'Are you at home?', 'I have your umbrella')
  await ann.writes('See you on Saturday')
  await ann.sees('See you on Saturday', 'delivered')
  await server.api('PUT', 'users/2/blocks/1')
  await ann.writes('And bring the good coffee!')
  await ann.alert.waitFor()
  await server.api('DELETE', 'users/2/blocks/1')
  await ben.field.waitFor()
  for (const [name, person] of [['ann', ann], ['ben', ben]]) {
    for (const [width, height] of [[1280, 800], [375, 720]]) {
      for (const scheme of ['light', 'dark']) {
        await person.page.setViewportSize({ width, height })
        await person.page.emulateMedia({ colorScheme: scheme })
        await person.page.mouse.move(width - 4, height / 2)
        await sleep(300)
        await person.page.screenshot({ path: join(pictures, `${name}-${scheme}-${width}.png`) })
      }
    }
  }
  await browser.close()
  await server.stop()
})
