import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.*;

/** Makes Kafka's own clients say all they can, for tools/record_golden.py; each call is a story of its own. */
public class GoldenClient {
    interface Story { void tell() throws Exception; }

    static void tell(String name, Story story) {
        try {
            story.tell();
        } catch (Throwable error) {
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            System.out.println(name + ": " + cause.getClass().getSimpleName() + ": " + cause.getMessage());
        }
    }

    static Map<String, Object> settings(String... pairs) {
        Map<String, Object> found = new HashMap<>();
        for (int index = 0; index < pairs.length; index += 2) found.put(pairs[index], pairs[index + 1]);
        return found;
    }

    static Map<String, Object> with(Map<String, Object> base, String... pairs) {
        Map<String, Object> found = new HashMap<>(base);
        found.putAll(settings(pairs));
        return found;
    }

    public static void main(String[] arguments) {
        String topic = arguments[2], group = topic + "-group";
        TopicPartition partition = new TopicPartition(topic, 0);
        Map<String, Object> base = settings("bootstrap.servers", arguments[0], "client.id", arguments[1],
            "request.timeout.ms", "8000", "default.api.timeout.ms", "10000", "max.block.ms", "10000",
            "delivery.timeout.ms", "10000", "linger.ms", "0", "enable.metrics.push", "false",
            "key.serializer", "org.apache.kafka.common.serialization.StringSerializer",
            "value.serializer", "org.apache.kafka.common.serialization.StringSerializer",
            "key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer",
            "value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        try (Admin admin = Admin.create(base)) {
            topics(admin, topic);
            tell("produce", () -> produce(with(base, "compression.type", "zstd"), topic));
            tell("consume", () -> consume(with(base, "group.id", group, "group.instance.id", "static"), topic));
            tell("consume, new", () -> consume(with(base, "group.id", group + "-new", "group.protocol", "consumer"), topic));
            tell("seek by epoch", () -> seek(base, partition));
            tell("transactions", () -> transact(with(base, "transactional.id", topic + "-txn"), topic, group));
            records(admin, partition);
            groups(admin, group, partition);
            tell("delete topic", () -> {
                Uuid id = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId();
                admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
            });
            tell("delete topic by name", () -> admin.deleteTopics(List.of(topic)).all().get());
        }
        if (arguments[3].isEmpty()) return;
        Map<String, Object> sasl = with(base, "bootstrap.servers", arguments[3], "security.protocol", "SASL_PLAINTEXT",
            "sasl.mechanism", "PLAIN", "sasl.jaas.config",
            "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"" + arguments[4]
                + "\" password=\"" + arguments[5] + "\";");
        tell("sasl", () -> {
            try (Admin admin = Admin.create(sasl)) { admin.listTopics().names().get(); }
        });
    }

    static void topics(Admin admin, String topic) {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        tell("create topic", () -> admin.createTopics(List.of(
            new NewTopic(topic, Map.of(0, List.of(1), 1, List.of(1))).configs(Map.of("retention.ms", "86400000")))).all().get());
        tell("more partitions", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get());
        tell("cluster", () -> admin.describeCluster(
            new DescribeClusterOptions().includeAuthorizedOperations(true)).nodes().get());
        tell("list topics", () -> admin.listTopics().names().get());
        tell("topics", () -> admin.describeTopics(List.of(topic)).allTopicNames().get());
        tell("configs", () -> admin.describeConfigs(List.of(resource),
            new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(false)).all().get());
        tell("change configs", () -> admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "3600000"), AlterConfigOp.OpType.SET),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND),
            new AlterConfigOp(new ConfigEntry("segment.ms", ""), AlterConfigOp.OpType.DELETE)))).all().get());
        tell("config resources", () -> admin.listConfigResources().all().get());
        quotas(admin, topic);
        credentials(admin, topic);
        tell("client metrics resources", () -> admin.listConfigResources(
            Set.of(ConfigResource.Type.CLIENT_METRICS), new ListConfigResourcesOptions()).all().get());
    }

    static void quotas(Admin admin, String user) {
        ClientQuotaEntity entity = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, user));
        for (Double value : Arrays.asList(1048576.5, null)) {
            tell("change quotas", () -> admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity,
                List.of(new ClientQuotaAlteration.Op("producer_byte_rate", value))))).all().get());
            tell("quotas", () -> admin.describeClientQuotas(ClientQuotaFilter.containsOnly(List.of(
                ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.USER, user)))).entities().get());
        }
    }

    static void credentials(Admin admin, String user) {
        tell("new credentials", () -> admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(user,
            new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret".getBytes(), new byte[16]))).all().get());
        tell("credentials", () -> admin.describeUserScramCredentials(List.of(user, "nobody")).all().get());
        tell("no credentials", () -> admin.alterUserScramCredentials(List.of(
            new UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_256))).all().get());
    }

    static void produce(Map<String, Object> settings, String topic) throws Exception {
        try (Producer<String, String> producer = new KafkaProducer<>(settings)) {
            for (int number = 0; number < 5; number++)
                producer.send(new ProducerRecord<>(topic, 0, "key", "value " + number)).get();
        }
    }

    static void consume(Map<String, Object> settings, String topic) {
        Map<String, Object> own = with(settings, "auto.offset.reset", "earliest", "enable.auto.commit", "false");
        if (own.containsKey("group.protocol")) own.remove("group.instance.id");
        try (Consumer<String, String> consumer = new KafkaConsumer<>(own)) {
            consumer.subscribe(List.of(topic));
            for (int poll = 0; poll < 40; poll++) {
                if (consumer.poll(Duration.ofMillis(250)).isEmpty()) continue;
                consumer.commitSync();
                consumer.committed(consumer.assignment());
                consumer.endOffsets(consumer.assignment());
                consumer.poll(Duration.ofMillis(600));
                break;
            }
        }
    }

    /** A position with a leader epoch makes the consumer ask where that epoch ends (KIP-320). */
    static void seek(Map<String, Object> settings, TopicPartition partition) {
        try (Consumer<String, String> consumer = new KafkaConsumer<>(settings)) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, new OffsetAndMetadata(1, Optional.of(0), ""));
            for (int poll = 0; poll < 20 && consumer.poll(Duration.ofMillis(250)).isEmpty(); poll++) { }
        }
    }

    static void transact(Map<String, Object> settings, String topic, String group) throws Exception {
        try (Producer<String, String> producer = new KafkaProducer<>(settings)) {
            producer.initTransactions();
            for (boolean commit : List.of(true, false)) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(topic, 1, "key", "in a transaction")).get();
                producer.sendOffsetsToTransaction(
                    Map.of(new TopicPartition(topic, 1), new OffsetAndMetadata(3)), new ConsumerGroupMetadata(group));
                if (commit) producer.commitTransaction(); else producer.abortTransaction();
            }
        }
    }

    static void records(Admin admin, TopicPartition partition) {
        for (OffsetSpec spec : List.of(OffsetSpec.latest(), OffsetSpec.maxTimestamp(), OffsetSpec.forTimestamp(1)))
            tell("offsets", () -> admin.listOffsets(Map.of(partition, spec)).all().get());
        tell("delete records", () -> admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(2))).all().get());
        tell("producers", () -> admin.describeProducers(List.of(new TopicPartition(partition.topic(), 1))).all().get());
        tell("elect leaders", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).partitions().get());
        tell("reassign", () -> admin.alterPartitionReassignments(
            Map.of(partition, Optional.of(new NewPartitionReassignment(List.of(1))))).all().get());
        tell("reassignments", () -> admin.listPartitionReassignments().reassignments().get());
        tell("log dirs", () -> {
            Map<String, LogDirDescription> found = admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1);
            for (String directory : found.keySet())
                admin.alterReplicaLogDirs(Map.of(
                    new TopicPartitionReplica(partition.topic(), partition.partition(), 1), directory)).all().get();
        });
    }

    static void groups(Admin admin, String group, TopicPartition partition) {
        tell("groups", () -> admin.listGroups().all().get());
        tell("group", () -> admin.describeConsumerGroups(List.of(group)).all().get());
        tell("group, new", () -> admin.describeConsumerGroups(List.of(group + "-new")).all().get());
        tell("group offsets", () -> admin.listConsumerGroupOffsets(group).all().get());
        tell("leave", () -> admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions(
            List.of(new MemberToRemove("static")))).all().get());
        tell("delete group offsets", () -> admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all().get());
        tell("delete groups", () -> admin.deleteConsumerGroups(List.of(group, group + "-new")).all().get());
    }
}
