// With UPDATE_DOCS: the pictures of the chat page in docs/chat, of the demo's two friends.

import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { launch } from './browser.mjs'
import { Person } from './people.mjs'
import { Server, sleep } from './server.mjs'

const pictures = join(dirname(fileURLToPath(import.meta.url)), '../../docs/chat')
const hour = 3_600_000

/** A lake in the evening. */
function paint () {
  const [width, height] = [1200, 800]
  const canvas = Object.assign(document.createElement('canvas'), { width, height })
  const context = canvas.getContext('2d')
  const fill = (from, to, ...colours) => {
    const gradient = context.createLinearGradient(0, from, 0, to)
    for (const [index, colour] of colours.entries()) gradient.addColorStop(index / (colours.length - 1), colour)
    context.fillStyle = gradient
  }
  const hills = (base, rise, pitch, shift) => {
    context.beginPath()
    context.moveTo(0, base)
    for (let x = 0; x <= width; x += 8) context.lineTo(x, base - rise * (0.55 + 0.3 * Math.sin(x / pitch + shift) + 0.15 * Math.sin(x / pitch * 2.7 + shift * 3)))
    context.lineTo(width, base)
    context.fill()
  }
  fill(0, 470, '#2b3a67', '#a05a86', '#f2906b', '#ffd58a')
  context.fillRect(0, 0, width, 480)
  context.fillStyle = '#fff1c9'
  context.beginPath()
  context.arc(760, 395, 46, 0, 7)
  context.fill()
  for (const [rise, pitch, shift, far, near] of [[230, 210, 1, '#8a5a86', '#b8728a'], [150, 150, 4, '#5d4374', '#7c5280'], [80, 90, 2, '#33294f', '#43335e']]) {
    fill(480 - rise, 480, far, near)
    hills(480, rise, pitch, shift)
  }
  fill(480, 800, '#f0a274', '#8d5c86', '#2a3560')
  context.fillRect(0, 480, width, 320)
  for (let line = 0; line < 90; line++) {
    const y = 484 + line * line / 27
    const spread = 30 + line * 2.2
    context.fillStyle = `rgb(255 236 190 / ${0.5 - line / 220})`
    context.fillRect(760 - spread * (0.4 + 0.6 * Math.abs(Math.sin(line * 1.9))), y, spread * (0.7 + Math.abs(Math.sin(line * 2.3))), 1.5 + line / 40)
  }
  context.fillStyle = '#1d1733'
  context.fillRect(0, 700, 330, 16)
  for (const x of [40, 140, 240, 315]) context.fillRect(x, 700, 10, 70)
  return canvas.toDataURL('image/jpeg', 0.9).split(',')[1]
}

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
  await ann.page.locator('input[type=file]').setInputFiles({ name: 'lake.jpg', mimeType: 'image/jpeg', buffer: Buffer.from(await ann.page.evaluate(paint), 'base64') })
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
