// Every state of the chat page, light on a desk and dark on a telephone: what axe and html-validate find, and whether it fits, also on
// a tablet. SHOTS=FOLDER keeps pictures of each, for looking.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { join } from 'node:path'
import { isWider, launch, markupFaults, versions, violations } from './browser.mjs'
import { Person } from './people.mjs'
import { painted } from './painting.mjs'
import { Server } from './server.mjs'

const shots = process.env.SHOTS
const looks = [[320, 568, 'dark'], [768, 700, 'dark'], [1280, 800, 'light']]
const paragraph = 'It is a long way, and nobody knows it better than you do. '.repeat(6).trim()
let server, browser

before(async () => {
  server = await new Server({ JAM_MQTT_LIMITS__FAILED_AUTH: '2' }).start()
  browser = await launch()
  const names = {
    '1': 'Ann', '2': 'Ben', '3': 'Carla Jung', '4': 'ليلى', '5': 'Donaudampfschifffahrtsgesellschaftskapitänin Friederike von und zu Hohenstein', '6': 'Emil', '9': 'Nora'
  }
  for (const [id, name] of Object.entries(names)) await server.user(id, name)
  for (const other of ['2', '3', '4', '5', '6']) await server.api('PUT', `users/1/friends/${other}`)
  const said = async (from, ...texts) => {
    const client = await server.client(from, { device: 'app', listens: false })
    for (const [text, days] of texts) await server.write(client, from, '1', text, { timestamp: new Date(Date.now() - days * 86_400_000).toISOString() })
    client.end(true)
  }
  await said('6', ['The last thing that I wrote to you', 9])
  await said('5', ['A name that fills a line, and words that do as well, however wide the window is', 3])
  await said('4', ['أراك يوم الجمعة', 2], ['مرحبا، هل أنت في البيت؟ https://example.org/a', 2])
  await said('3', ['One', 1], ['Two', 1], ['Three', 1])
  await said('2', [paragraph, 1], ['Have a look: https://www.openstreetmap.org/#map=13/47.59/12.99', 0], ['🎉', 0], [{ poll: ['yes', 'no'] }, 0], ['x'.repeat(300), 0])
})

after(async () => {
  await browser?.close()
  await server?.stop()
})

/** The states, in the order in which one person meets them. Each leaves the page as the next one wants it. */
async function walk (seen) {
  let one = await Person.enters(browser, server.chat)
  const link = async (id) => {
    await one.leaves()
    one = await Person.enters(browser, server.link(id))
    return one
  }
  const state = (name, options) => seen(one, name, options)
  const { page } = one
  await page.getByLabel('User id').waitFor()
  await state('login')
  await page.getByLabel('User id').fill('1')
  await page.getByLabel('Token').fill('wrong')
  await page.getByRole('button', { name: 'Log in' }).click()
  await one.alert.waitFor()
  await state('login refused')
  const lockedOut = page.getByText('Too many failed logins')
  for (let tries = 0; tries < 3 && !await lockedOut.isVisible(); tries++) {
    await page.getByLabel('Token').fill('wrong again')
    await page.getByRole('button', { name: 'Log in' }).click()
    await one.alert.or(lockedOut).waitFor()
  }
  await lockedOut.waitFor()
  await state('locked out')
  await server.api('DELETE', 'lockouts/127.0.0.1')

  await link('9')
  await one.page.getByText('You have no friends here yet').waitFor()
  await state('empty list')

  await link('1')
  await one.friend('Carla Jung').getByText('3').waitFor()
  await one.page.setViewportSize({ width: 320, height: 568 })
  await one.page.goto(server.chat)
  await one.friend('Ben').waitFor()
  await state('list', { widest: 320 })
  await one.opens('Ben')
  await state('conversation')
  await one.page.locator('input[type=file]').setInputFiles({ name: 'lake.jpg', mimeType: 'image/jpeg', buffer: await painted(one.page) })
  await one.page.getByRole('img', { name: 'about to send' }).waitFor()
  await one.field.fill('Do you remember?\nIt was cold.')
  await state('picture attached')
  await one.field.press('Enter')
  await one.page.getByRole('img', { name: 'Picture from you' }).waitFor()
  await one.sees('Do you remember?', 'sent')
  await one.page.getByRole('button', { name: 'Emoji' }).click()
  await state('emoji')
  await one.page.keyboard.press('Escape')
  await one.page.getByRole('link', { name: 'Picture from you' }).last().click()
  await one.page.getByRole('dialog').waitFor()
  await state('viewer')
  await one.page.keyboard.press('Escape')
  await server.api('PUT', 'users/2/blocks/1')
  await one.writes('And bring the good coffee!')
  await one.alert.waitFor()
  await state('refused')
  await server.api('DELETE', 'users/2/blocks/1')
  await one.page.context().setOffline(true)
  await one.page.getByRole('status').getByText('You are offline').waitFor()
  await one.writes('This waits')
  await one.sees('This waits', 'waiting to be sent')
  await state('offline')
  await one.page.context().setOffline(false)
  await one.sees('This waits', 'sent')
  await one.opens('ليلى')
  await state('from the right')
  await one.opens('Donau')
  await state('long name')
  await server.api('PUT', 'users/1/blocks/5')
  await one.page.getByText('You have blocked Donau').last().waitFor()
  await state('blocked')
  await server.api('DELETE', 'users/1/blocks/5')
  await server.api('DELETE', 'users/1/friends/6')
  await one.opens('Emil').catch(() => one.friend('6').click())
  await state('former friend')
  await server.api('PUT', 'users/1/friends/6')
  const other = await Person.enters(browser, server.link('1'))
  await one.alert.getByText('another device').waitFor()
  await state('elsewhere')
  await one.page.getByRole('button', { name: 'Use here' }).click()
  await one.alert.waitFor({ state: 'hidden' })
  await other.leaves()
  await one.page.evaluate(() => { IDBDatabase.prototype.transaction = () => { throw new DOMException('the disk is gone', 'UnknownError') } })
  await one.opens('Carla Jung')
  await one.alert.waitFor()
  await state('store fails')
  await one.page.reload()
  await one.friend('Ben').waitFor()
  await one.page.getByRole('button', { name: 'Log out' }).click()
  await one.page.getByText('You are logged out').waitFor()
  await state('logged out')
  await one.leaves()
}

test('every state is accessible, valid and fits', async () => {
  const faults = []
  await walk(async ({ page }, name, { widest = Infinity } = {}) => {
    for (const [width, height, colorScheme] of looks) {
      if (width > widest) continue
      await page.setViewportSize({ width, height })
      await page.emulateMedia({ colorScheme })
      const at = `${name}, ${width} px, ${colorScheme}`
      if (width !== 768) faults.push(...(await violations(page)).map((fault) => `${at}: ${fault}`))
      if (await isWider(page)) faults.push(`${at}: it has to be scrolled sideways`)
      if (shots) await page.screenshot({ path: join(shots, `${name.replaceAll(' ', '-')}-${width}-${colorScheme}.png`) })
    }
    await page.setViewportSize({ width: 1280, height: 800 })
    faults.push(...(await markupFaults(await page.content())).map((fault) => `${name}: ${fault}`))
  })
  assert.deepEqual(faults, [], versions(browser))
})
