package bench;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Aggregator;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.Stores;

/** What the programs share: settings from the environment, marks on standard output, the table of candles. */
final class Harness {
    static final Duration MINUTE = Duration.ofMinutes(1);
    static final String STORE = "candles";

    private Harness() {}

    static String setting(String name) {
        String value = System.getenv("BENCH_" + name);
        if (value == null) {
            throw new IllegalStateException("BENCH_" + name + " is not set");
        }
        return value;
    }

    /** One line that the harness reads; `more` is the rest of a JSON object. */
    static void mark(String name, String more) {
        synchronized (System.out) {
            System.out.println("BENCH {\"mark\": \"" + name + "\"" + (more.isEmpty() ? "" : ", " + more) + "}");
            System.out.flush();
        }
    }

    static Properties properties() {
        Properties settings = new Properties();
        settings.put("application.id", setting("GROUP"));
        settings.put("bootstrap.servers", setting("BROKERS"));
        settings.put("state.dir", setting("STATE"));
        settings.put("num.stream.threads", setting("THREADS"));
        settings.put("auto.offset.reset", "earliest");
        settings.put("replication.factor", "1");
        settings.put("commit.interval.ms", "1000");
        settings.put("statestore.cache.max.bytes", String.valueOf(64 << 20));
        settings.put("max.poll.records", "5000");
        settings.put("session.timeout.ms", "10000");
        return settings;
    }

    /** Candles per symbol and minute of the topic's trades, in a RocksDB window store with a changelog. */
    static void candles(StreamsBuilder builder, Aggregator<String, Trade, Candle> step) {
        ObjectReader reader = new ObjectMapper().readerFor(Trade.class);
        Serde<Trade> trades = Serdes.serdeFrom((topic, trade) -> null, (topic, data) -> {
            try {
                return reader.readValue(data);
            } catch (IOException problem) {
                throw new UncheckedIOException(problem);
            }
        });
        builder.stream(setting("TOPIC"), Consumed.with(Serdes.String(), trades))
                .groupByKey()
                .windowedBy(TimeWindows.ofSizeAndGrace(MINUTE, Duration.ofSeconds(10)))
                .aggregate(
                        Candle::new,
                        step,
                        Materialized.<String, Candle>as(
                                        Stores.persistentWindowStore(STORE, Duration.ofDays(1), MINUTE, false))
                                .withKeySerde(Serdes.String())
                                .withValueSerde(Candle.serde()));
    }

    /** Start, and return once everything is restored and running. */
    static void startAndWait(KafkaStreams streams) throws InterruptedException {
        CountDownLatch running = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                running.countDown();
            }
        });
        streams.start();
        running.await();
    }
}
