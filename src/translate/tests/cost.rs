//! What a change costs, counted in resources built: the same whatever else there is.

use super::world::World;
use super::*;

/// `size` services, each with a policy, a route, a workload that serves it and one that calls it; one caller of all.
fn world(size: usize) -> World {
    let mut world = World::default();
    let mut all = Vec::new();
    for n in 0..size {
        let listed = if n == 0 { endpoints(1) } else { String::new() };
        world.put("MeshService", &format!("a/s{n}"), &service(&listed));
        world.put("TrafficRoute", &format!("a/s{n}"), &route(n, 1));
        world.put("AccessPolicy", &format!("a/s{n}"), &format!("{{target: {{service: s{n}}}, default: allow}}"));
        let serves = format!("{{service: s{n}, listen: \"127.0.0.1:1\", app: \"127.0.0.1:2\"}}");
        world.put("Workload", &format!("a/w{n}"), &format!("{{serves: [{serves}]}}"));
        let call = |port: usize| format!("{{service: s{n}, listen: \"127.0.0.1:{port}\"}}");
        world.put("Workload", &format!("a/c{n}"), &format!("{{calls: [{}]}}", call(3)));
        all.push(call(1000 + n));
    }
    world.put("Workload", "a/all", &format!("{{calls: [{}]}}", all.join(", ")));
    world
}

fn service(rest: &str) -> String {
    format!("{{ports: [{{name: http, port: 80, protocol: http}}]{rest}}}")
}

fn endpoints(last: usize) -> String {
    format!(", endpoints: {{static: [{{address: 127.0.0.{last}, port: 9}}]}}")
}

fn route(n: usize, timeout: usize) -> String {
    format!("{{for: {{service: s{n}}}, http: [{{name: all, to: [{{service: s{n}}}], timeout: {timeout}s}}]}}")
}

#[test]
fn a_change_builds_what_depends_on_it_whatever_else_there_is() {
    let mut all_looked_at = Vec::new();
    for size in [50, 500] {
        let mut world = world(size);
        let mut translator = Translator::open(None).0;
        let mut last = translator.translate(&world.inputs(), &features(), 0).expect("new");
        assert!(translator.built() >= 7 * size, "{}", translator.built());
        assert!(translator.evaluated() >= 5 * size, "{}", translator.evaluated());
        let mut looked_at = Vec::new();
        let mut costs = |world: &World| {
            let next = translator.translate(&world.inputs(), &features(), 0).expect("changed");
            let groups = next.groups.iter().filter(|(group, held)| !Arc::ptr_eq(held, &last.groups[*group])).count();
            let changed: BTreeSet<String> = changed(&last, &next).into_iter().collect();
            last = next;
            looked_at.push((translator.evaluated(), translator.replanned()));
            (translator.built(), groups, changed.into_iter().collect::<Vec<_>>())
        };
        world.connect("a/w7", "w7-0", &["in/a/s7/http"], true);
        assert_eq!(costs(&world), (1, 2, vec!["EDS out/a/s7/http".to_owned()]), "a proxy comes");
        world.put("MeshService", "a/s0", &service(&endpoints(2)));
        assert_eq!(costs(&world), (1, 2, vec!["EDS out/a/s0/http".to_owned()]), "a list of endpoints changes");
        world.put("TrafficRoute", "a/s7", &route(7, 2));
        assert_eq!(costs(&world), (1, 2, vec!["RDS out/a/s7/http".to_owned()]), "a route changes");
        world.put("AccessPolicy", "a/s7", "{target: {service: s7}, default: deny}");
        assert_eq!(costs(&world), (1, 1, vec!["LDS in/a/s7/http".to_owned()]), "a policy changes");
        world.put("MTLSPolicy", "a/s7", "{target: {service: s7}, mode: permissive}");
        assert_eq!(costs(&world).0, 3, "the listener, the cluster and the endpoints of one service");
        world.put("AccessPolicy", "a/all", "{target: {scope: namespace}, deny: [{from: [{service: s1}]}]}");
        let (built, groups, changed) = costs(&world);
        assert_eq!((built, groups), (size, size), "one listener of each workload that serves: {changed:?}");
        // The last concerns every service.
        looked_at.pop();
        all_looked_at.push(looked_at);
    }
    assert_eq!(all_looked_at[0], all_looked_at[1], "of the rules, as much is looked at whatever else there is");
    // What was written itself, its service put together and its mode; a list also what is behind the service, a policy also
    // the ports that it covers. No entry of a workload is planned again. A proxy is no rule, and whoever routes to a
    // service or guards it does not read its list of endpoints.
    assert_eq!(all_looked_at[0], [(0, 0), (4, 0), (3, 0), (4, 0), (3, 0)], "{all_looked_at:?}");
}
